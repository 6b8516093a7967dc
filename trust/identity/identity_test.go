package identity

import (
	"crypto/rand"
	"errors"
	"testing"
	"time"
)

func TestRequest(t *testing.T) {
	key, err := NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC)
	s, err := SignRequest(key, "POST", "/v1/tickets", []byte("{}"), now)
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyRequest(&key.PublicKey, s, "POST", "/v1/tickets", []byte("{}"), now.Add(Skew), Skew); err != nil {
		t.Error(err)
	}
	if err := VerifyRequest(&key.PublicKey, s, "POST", "/v1/tickets", []byte("{}"), now.Add(Skew+time.Second), Skew); !errors.Is(err, ErrClock) {
		t.Error(err)
	}
	if err := VerifyRequest(&key.PublicKey, s, "POST", "/v1/reports", []byte("{}"), now, Skew); !errors.Is(err, ErrSignature) {
		t.Error(err)
	}
}
