// Package cache keeps results in a folder from one run to the next, for a CI
// system to carry along.
//
// An entry has a key, which says what was asked; a head, by which whoever asks
// again finds out whether the answer still holds; and a body, the answer. A key
// may have a few entries, since branches take turns.
//
// What is in the folder is as good as whoever can write to it: each file holds a
// digest, which tells what is torn, cut or misplaced from what was written, and
// not what was forged. A file that does not have its digest is removed and counts
// as missing. Files are written beside their place and renamed, so that jobs can
// share a folder; what one of them cannot read or write costs time and nothing
// else. Only files that are named as entries are ever looked at or removed.
package cache

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// variants is how many entries a key can have. Each is looked at in turn, so
// many would cost what the cache is to save.
const variants = 4

// abandoned is the age at which a file is no longer being written by anybody.
const abandoned = time.Hour

// Folder is an open cache. It is safe for concurrent use.
type Folder struct {
	dir   string
	limit int64
	now   time.Time

	mu       sync.Mutex
	entries  map[string][]entry // by key, what was used last first
	stuck    bool               // a write has failed; so would the next
	problems []Problem
}

// entry is a file of the folder.
type entry struct {
	name string
	size int64
	used time.Time
}

// Problem is something that kept the cache from being of use.
type Problem struct {
	// Path is the file or folder.
	Path string
	// Damaged says that an entry did not hold what was written into it. If it
	// is false, something could not be read or written.
	Damaged bool
	Err     error
}

// Open opens the cache in a folder, which it makes if it is missing. limit is
// how many bytes [Folder.Tidy] leaves there; now is when the entries that are met
// count as used.
func Open(dir string, limit int64, now time.Time) (*Folder, error) {
	f := &Folder{dir: filepath.Join(dir, "builds"), limit: limit, now: now, entries: map[string][]entry{}}
	// Entries hold what manifests hold, and those may hold secrets.
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, err
	}
	found, err := f.list()
	if err != nil {
		return nil, err
	}
	for _, e := range slices.Backward(found) {
		key := keyOf(e.name)
		f.entries[key] = append(f.entries[key], e)
	}
	return f, nil
}

// Entries are named by their key and a part of the digest of their head.
var entryName = regexp.MustCompile(`^[0-9a-f]{64}-[0-9a-f]{16}$`)

// temporary begins the names of files that are being written.
const temporary = ".new-"

func keyOf(name string) string {
	key, _, _ := strings.Cut(name, "-")
	return key
}

// list returns the entries, what was used least lately first.
func (f *Folder) list() ([]entry, error) {
	files, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	var entries []entry
	for _, file := range files {
		if !entryName.MatchString(file.Name()) || !file.Type().IsRegular() {
			continue
		}
		info, err := file.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // another job has removed it
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{file.Name(), info.Size(), info.ModTime()})
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.name, b.name)) })
	return entries, nil
}

// Find offers the entries of a key to take, what was used last first, until it
// accepts one. An error of take means that the entry cannot be what was kept: then
// it is removed.
func (f *Folder) Find(asked []byte, take func(head, body []byte) (bool, error)) bool {
	key := keyFor(asked)
	f.mu.Lock()
	candidates := slices.Clone(f.entries[key])
	f.mu.Unlock()
	for _, e := range candidates {
		if e.size > f.limit {
			continue // nobody has written that
		}
		name := filepath.Join(f.dir, e.name)
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another job has removed it
		}
		if err != nil {
			f.note(Problem{Path: name, Err: err})
			continue
		}
		ok := false
		head, body, err := unpack(key, data)
		if err == nil {
			ok, err = take(head, body)
		}
		if err != nil {
			f.note(Problem{Path: name, Damaged: true, Err: err})
			f.remove(e.name)
			continue
		}
		if ok {
			// If that fails the entry goes earlier than it should have to.
			_ = os.Chtimes(name, f.now, f.now)
			return true
		}
	}
	return false
}

// Keep stores an entry, in place of one with the same head, and of the key's
// oldest if there are too many.
func (f *Folder) Keep(asked, head, body []byte) {
	key := keyFor(asked)
	f.mu.Lock()
	stuck := f.stuck
	f.mu.Unlock()
	data := pack(key, head, body)
	if stuck || int64(len(data)) > f.limit {
		return
	}
	sum := sha256.Sum256(head)
	e := entry{name: key + "-" + hex.EncodeToString(sum[:8]), size: int64(len(data)), used: f.now}
	if err := f.write(e.name, data); err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !f.stuck {
			f.stuck = true
			f.problems = append(f.problems, Problem{Path: f.dir, Err: err})
		}
		return
	}
	f.mu.Lock()
	same := func(other entry) bool { return other.name == e.name }
	all := append([]entry{e}, slices.DeleteFunc(f.entries[key], same)...)
	kept := min(len(all), variants)
	f.entries[key] = all[:kept:kept]
	f.mu.Unlock()
	for _, old := range all[kept:] {
		f.remove(old.name)
	}
}

// write makes a file at once, or not at all. Nothing is flushed to the disk: what
// a crash tears does not have its digest.
func (f *Folder) write(name string, data []byte) error {
	file, err := os.CreateTemp(f.dir, temporary+"*") // for the owner only
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Chtimes(file.Name(), f.now, f.now)
	}
	if err == nil {
		err = os.Rename(file.Name(), filepath.Join(f.dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}

// Tidy removes what was used least lately until the folder is within its limit,
// and what jobs that were killed have left half written.
func (f *Folder) Tidy() {
	entries, err := f.list()
	if err != nil {
		f.note(Problem{Path: f.dir, Err: err})
		return
	}
	var total int64
	for _, e := range entries {
		total += e.size
	}
	for _, e := range entries {
		if total <= f.limit {
			break
		}
		f.remove(e.name)
		total -= e.size
	}
	files, err := os.ReadDir(f.dir)
	if err != nil {
		f.note(Problem{Path: f.dir, Err: err})
		return
	}
	for _, file := range files {
		if !strings.HasPrefix(file.Name(), temporary) {
			continue
		}
		if info, err := file.Info(); err == nil && f.now.Sub(info.ModTime()) > abandoned {
			f.remove(file.Name())
		}
	}
}

// remove removes a file, which another job may have done before.
func (f *Folder) remove(name string) {
	name = filepath.Join(f.dir, name)
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.note(Problem{Path: name, Err: err})
	}
}

func (f *Folder) note(p Problem) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.problems = append(f.problems, p)
}

// Problems returns what has gone wrong since it was last asked, sorted.
func (f *Folder) Problems() []Problem {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.problems
	f.problems = nil
	slices.SortStableFunc(all, func(a, b Problem) int { return cmp.Compare(a.Path, b.Path) })
	return all
}

// keyFor makes the name of a key.
func keyFor(asked []byte) string {
	sum := sha256.Sum256(asked)
	return hex.EncodeToString(sum[:])
}

// A file is magic, the SHA-256 of what follows and of the key, the length of the
// head in 8 bytes, the head, the body.
const magic = "sluice build 1\n"

func pack(key string, head, body []byte) []byte {
	data := make([]byte, 0, len(magic)+sha256.Size+8+len(head)+len(body))
	data = append(data, magic...)
	data = append(data, make([]byte, sha256.Size)...)
	data = binary.BigEndian.AppendUint64(data, uint64(len(head)))
	data = append(append(data, head...), body...)
	copy(data[len(magic):], digest(key, data[len(magic)+sha256.Size:]))
	return data
}

func digest(key string, rest []byte) []byte {
	sum := sha256.New()
	sum.Write([]byte(key))
	sum.Write(rest)
	return sum.Sum(nil)
}

func unpack(key string, data []byte) (head, body []byte, err error) {
	data, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok || len(data) < sha256.Size+8 {
		return nil, nil, errors.New("it is no entry of the cache, or only the beginning of one")
	}
	sum, rest := data[:sha256.Size], data[sha256.Size:]
	if !bytes.Equal(sum, digest(key, rest)) {
		return nil, nil, errors.New("its content does not have the digest that it was written with")
	}
	length, rest := binary.BigEndian.Uint64(rest), rest[8:]
	if length > uint64(len(rest)) {
		return nil, nil, fmt.Errorf("its head would be %d bytes long, of %d", length, len(rest))
	}
	return rest[:length], rest[length:], nil
}
