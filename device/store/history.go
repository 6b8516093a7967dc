package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
)

// Record is one line of the history: what happened, why, and by whom.
type Record struct {
	Seq     int       `json:"seq"`  // 1, 2, 3…
	Time    time.Time `json:"time"` // UTC; the clock may have been wrong
	Event   string    `json:"event"`
	Release string    `json:"release,omitempty"`
	App     string    `json:"app,omitempty"`
	Set     string    `json:"set,omitempty"`
	Reason  string    `json:"reason"` // a stable code
	Actor   string    `json:"actor"`  // auto, user:UID, policy, recall
	Text    string    `json:"text,omitempty"`
	Change  string    `json:"change,omitempty"` // the change that it tells of
	Prev    string    `json:"prev"`             // SHA-256 of the line before, in hex; "" in the first
}

// maxRecord bounds one line, in bytes.
const maxRecord = 8 << 10

// headSchema is the version of history.head: the count and digest of the last
// line, kept beside the history so that cutting lines off its end is seen.
const headSchema = "sealant.history-head/1"

type historyHead struct {
	Schema string `json:"schema"`
	Seq    int    `json:"seq"`
	Digest string `json:"digest"`
}

// Append writes a record at the end of the history, durably, filling in its
// number and chain. The caller holds Lock. A half line, as a power cut leaves
// it, is cut off first. The last record's change and event are not told twice.
func (s *Store) Append(r Record) error {
	fail := func(err error) error { return fmt.Errorf("cannot write history: %w", err) }
	f, err := os.OpenFile(s.path("history"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	last, end, err := lastLine(f)
	if err != nil {
		return fail(err)
	}
	r.Seq, r.Prev = 1, ""
	if last != nil {
		var before Record
		if err := json.Unmarshal(last, &before); err != nil {
			return fail(err)
		}
		if r.Change != "" && r.Change == before.Change && r.Event == before.Event {
			return nil // told already, before a crash
		}
		r.Seq, r.Prev = before.Seq+1, lineDigest(last)
	}
	r.Time = r.Time.UTC().Truncate(time.Second)
	line, err := json.Marshal(r)
	if err != nil {
		return fail(err)
	}
	if len(line) > maxRecord {
		return fail(fmt.Errorf("record of %d bytes", len(line)))
	}
	if err := f.Truncate(end); err != nil {
		return fail(err)
	}
	if _, err := f.WriteAt(append(line, '\n'), end); err != nil {
		return fail(err)
	}
	if err := f.Sync(); err != nil {
		return fail(err)
	}
	if r.Seq == 1 {
		if err := syncDir(s.dir); err != nil {
			return fail(err)
		}
	}
	if s.Appended != nil {
		s.Appended(r)
	}
	return writeDocument(s.path("history.head"), historyHead{headSchema, r.Seq, lineDigest(line)}, 0o644)
}

// lastLine finds the last whole line and the offset after it.
func lastLine(f *os.File) (line []byte, end int64, err error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	// The last two lines, the last of them possibly half.
	start := max(0, fi.Size()-3*maxRecord)
	tail := make([]byte, fi.Size()-start)
	if _, err := f.ReadAt(tail, start); err != nil && err != io.EOF {
		return nil, 0, err
	}
	nl := bytes.LastIndexByte(tail, '\n')
	if nl < 0 {
		if start > 0 {
			return nil, 0, errors.New("its last line is too long")
		}
		return nil, 0, nil
	}
	begin := bytes.LastIndexByte(tail[:nl], '\n') + 1
	if begin == 0 && start > 0 {
		return nil, 0, errors.New("its last line is too long")
	}
	return tail[begin:nl], start + int64(nl) + 1, nil
}

func lineDigest(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// History reads all records and checks that they are whole: numbered without
// gap, each naming the digest of the line before, the last one as the head
// says. When the chain is broken it returns the records before the break and
// an error of kind fault.Seal. A half line at the end is a power cut, no error.
func (s *Store) History() ([]Record, error) {
	data, err := readFile(s.path("history"), maxHistory)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read history: %w", err)
	}
	broken := func(n int, why string) error {
		return fault.New(fault.Seal, "cannot trust history after record %d: %s", n, why)
	}
	var all []Record
	prev := ""
	sc := bufio.NewScanner(bytes.NewReader(data[:bytes.LastIndexByte(data, '\n')+1]))
	sc.Buffer(make([]byte, 0, maxRecord), maxRecord+1)
	for sc.Scan() {
		var r Record
		d := json.NewDecoder(bytes.NewReader(sc.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil {
			return all, broken(len(all), err.Error())
		}
		if r.Seq != len(all)+1 || r.Prev != prev {
			return all, broken(len(all), "the chain is broken")
		}
		prev = lineDigest(sc.Bytes())
		all = append(all, r)
	}
	if err := sc.Err(); err != nil {
		return all, broken(len(all), err.Error())
	}
	var head historyHead
	err = readDocument(s.path("history.head"), headSchema, &head)
	switch {
	case errors.Is(err, ErrEmpty) && len(all) <= 1:
		return all, nil // nothing yet, or power was cut in the first record
	case err != nil:
		return all, broken(len(all), err.Error())
	case head.Seq == len(all) && head.Digest == prev:
		return all, nil
	case head.Seq == len(all)-1 && head.Digest == all[len(all)-1].Prev:
		return all, nil // power was cut between line and head
	}
	return all, broken(len(all), fmt.Sprintf("its head says %d records", head.Seq))
}
