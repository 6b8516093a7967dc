// Package setlog keeps the public log of every set that was ever authorised
// (package trust/setlog says what it is for), in the database that all servers
// share, and serves it.
//
// The log grows by a record per published set, not per ticket: the first ticket
// for a set pays for it, all later ones look into memory.
package setlog

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealant-os/sealant/server/catalog"
	"github.com/sealant-os/sealant/server/store"
	"github.com/sealant-os/sealant/trust/setlog"
)

// Log is the log as its writer sees it. It is an http.Handler for what stands
// below the log's address.
type Log struct {
	DB     *store.DB
	Signer *setlog.Signer
	Now    func() time.Time

	known sync.Map // [48]byte: sets that are in the log
}

// Include makes sure that a set is in the log. A ticket for it may be signed
// only after that.
func (l *Log) Include(ctx context.Context, set *catalog.Set) error {
	if _, ok := l.known.Load(set.Content); ok {
		return nil
	}
	text := set.Text()
	_, err := l.DB.AppendLog(ctx, store.LogRecord{Content: set.Content, Text: text, At: l.Now()}, func(number int64, h store.Hashes) (int64, [][32]byte, []byte, error) {
		return l.extend(number, text, h)
	})
	if err != nil {
		return fmt.Errorf("cannot put the set into the log: %w", err)
	}
	l.known.Store(set.Content, true)
	return nil
}

// extend computes what record number adds to the tree, and signs the head.
func (l *Log) extend(number int64, text []byte, read store.Hashes) (first int64, add [][32]byte, head []byte, err error) {
	stored, err := tlog.StoredHashes(number, text, reader(read))
	if err != nil {
		return 0, nil, nil, err
	}
	first = tlog.StoredHashIndex(0, number)
	for _, h := range stored {
		add = append(add, h)
	}
	root, err := tlog.TreeHash(number+1, tlog.HashReaderFunc(func(numbers []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(numbers))
		for i, n := range numbers {
			if n >= first {
				hashes[i] = stored[n-first]
				continue
			}
			old, err := read([]int64{n})
			if err != nil {
				return nil, err
			}
			hashes[i] = old[0]
		}
		return hashes, nil
	}))
	if err != nil {
		return 0, nil, nil, err
	}
	head, err = l.Signer.SignHead(tlog.Tree{N: number + 1, Hash: root})
	return first, add, head, err
}

// reader makes the database's hashes a tlog.HashReader.
func reader(read store.Hashes) tlog.HashReader {
	return tlog.HashReaderFunc(func(numbers []int64) ([]tlog.Hash, error) {
		got, err := read(numbers)
		if err != nil {
			return nil, err
		}
		hashes := make([]tlog.Hash, len(got))
		for i, h := range got {
			hashes[i] = h
		}
		return hashes, nil
	})
}

// ServeHTTP answers latest, key, lookup/… and tile/…; the caller has stripped
// the log's own address.
func (l *Log) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	body, cache, err := l.answer(r.Context(), path)
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, errNoPath):
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "the log does not have this", http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, "the log can't be read at the moment", http.StatusServiceUnavailable)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", cache)
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if strings.HasPrefix(path, "tile/") && !strings.Contains(path, "/data/") {
		h.Set("Content-Type", "application/octet-stream")
	}
	w.Write(body)
}

var errNoPath = errors.New("no such path")

const (
	cacheForever = "public, max-age=31536000, immutable"
	cacheShort   = "public, max-age=10"
)

func (l *Log) answer(ctx context.Context, path string) (body []byte, cache string, err error) {
	switch folder, rest, _ := strings.Cut(path, "/"); {
	case path == "latest":
		_, head, err := l.DB.LogHead(ctx)
		return head, cacheShort, err
	case path == "key":
		return []byte(l.Signer.Key() + "\n"), cacheShort, nil
	case folder == "lookup":
		body, err = l.lookup(ctx, rest)
		return body, cacheShort, err
	case folder == "tile":
		body, err = l.tile(ctx, path)
		return body, cacheForever, err
	}
	return nil, "", errNoPath
}

func (l *Log) lookup(ctx context.Context, name string) ([]byte, error) {
	raw, err := hex.DecodeString(name)
	if err != nil || len(raw) != 48 || hex.EncodeToString(raw) != name {
		return nil, errNoPath
	}
	r, err := l.DB.LogRecordOf(ctx, [48]byte(raw))
	if err != nil {
		return nil, err
	}
	_, head, err := l.DB.LogHead(ctx)
	if err != nil {
		return nil, err
	}
	return setlog.FormatLookup(r.Number, r.Text, head)
}

func (l *Log) tile(ctx context.Context, path string) ([]byte, error) {
	t, err := tlog.ParseTilePath(path)
	if err != nil || t.H != setlog.Height {
		return nil, errNoPath
	}
	size, _, err := l.DB.LogHead(ctx)
	if err != nil {
		return nil, err
	}
	// What is not under the head yet does not exist.
	level := max(t.L, 0)
	if shift := level * setlog.Height; shift > 62 || t.N > size>>setlog.Height || t.N<<setlog.Height+int64(t.W) > size>>shift {
		return nil, errNoPath
	}
	if t.L == -1 {
		return l.records(ctx, t)
	}
	return tlog.ReadTileData(t, reader(func(numbers []int64) ([][32]byte, error) { return l.DB.LogHashes(ctx, numbers) }))
}

// records is a tile of records, each without its number.
func (l *Log) records(ctx context.Context, t tlog.Tile) ([]byte, error) {
	list, err := l.DB.LogRecords(ctx, t.N<<setlog.Height, int64(t.W))
	if err != nil {
		return nil, err
	}
	var body []byte
	for _, r := range list {
		record, err := tlog.FormatRecord(r.Number, r.Text)
		if err != nil {
			return nil, err
		}
		body = append(body, record[slices.Index(record, '\n')+1:]...)
	}
	return body, nil
}

// Audit computes the whole tree from the records and compares it with the
// newest head, which must be signed by the log's key. It returns the records.
func Audit(ctx context.Context, db *store.DB, v note.Verifier) ([]store.LogRecord, error) {
	size, head, err := db.LogHead(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	tree, err := setlog.OpenHead(head, v)
	if err != nil {
		return nil, err
	}
	list, err := db.LogRecords(ctx, 0, size)
	if err != nil {
		return nil, err
	}
	if tree.N != size || int64(len(list)) != size {
		return nil, fmt.Errorf("cannot vouch for the log: its head is of %d records, %d are there", tree.N, len(list))
	}
	var stored []tlog.Hash
	own := tlog.HashReaderFunc(func(numbers []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(numbers))
		for i, n := range numbers {
			hashes[i] = stored[n]
		}
		return hashes, nil
	})
	for i, r := range list {
		if r.Number != int64(i) || hex.EncodeToString(r.Content[:]) != strings.TrimPrefix(setlog.LookupPath(r.Text), "lookup/") {
			return nil, fmt.Errorf("cannot vouch for the log: record %d was changed", i)
		}
		hashes, err := tlog.StoredHashes(int64(i), r.Text, own)
		if err != nil {
			return nil, err
		}
		stored = append(stored, hashes...)
	}
	root, err := tlog.TreeHash(size, own)
	if err != nil {
		return nil, err
	}
	if root != tree.Hash {
		return nil, errors.New("cannot vouch for the log: its records are not those that its head was signed for")
	}
	return list, nil
}
