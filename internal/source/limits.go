package source

import (
	"fmt"
	"io"
	"os"
)

// A repository is somebody else's text. What follows keeps a small one from asking
// for a lot: an object whose content is a gigabyte of zeros takes a megabyte in
// Git, and eleven folders that each hold the next one ten times are a tree of ten
// thousand million files.
const (
	// maxObject is the size of an object that is read, in bytes: a file, a
	// folder's listing, a commit.
	maxObject = 32 << 20
	// maxPath is the length of a file's path in bytes, and twice the depth of
	// folders. No checkout could hold a longer one (PATH_MAX).
	maxPath = 4096
	// maxIgnoreFiles and maxRules are how many .sourceignore files a commit may
	// have, and patterns in all of them.
	maxIgnoreFiles, maxRules = 10_000, 10_000
	// maxLooks is how many folders are looked through for what a pattern with
	// "!" brings back from an ignored one.
	maxLooks = 500_000
	// maxSubject is how much of a commit's subject and of its author is kept.
	maxSubject = 500
)

// Sizes of the files that Git keeps beside the objects, in bytes.
const (
	maxReference = 4 << 10  // a reference, and what leads to another Git folder
	maxConfig    = 1 << 20  // a configuration, a list of alternates
	maxPacked    = 64 << 20 // all packed references, an index
)

// readFile reads a file of a Git folder. It must be a regular one: of a device or
// a pipe there is no end.
func readFile(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &os.PathError{Op: "read", Path: name, Err: fmt.Errorf("it is %s, not a file", kindOf(info.Mode()))}
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, &os.PathError{Op: "read", Path: name, Err: fmt.Errorf("it is larger than %s, which no file of its kind is", size(limit))}
	}
	return data, err
}

func kindOf(mode os.FileMode) string {
	switch {
	case mode.IsDir():
		return "a folder"
	case mode&os.ModeNamedPipe != 0:
		return "a pipe"
	case mode&os.ModeDevice != 0:
		return "a device"
	}
	return "something special"
}

// size is a number of bytes for people.
func size(bytes int64) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%d KiB", bytes>>10)
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}

// sizeError says that an object is larger than maxObject.
type sizeError struct{ size int64 }

func (e *sizeError) Error() string {
	return fmt.Sprintf("it has %s, more than the %s that are read of one file", size(e.size), size(maxObject))
}

// Hint says what to do.
func (e *sizeError) Hint() string {
	return "divide the file, or leave it out by a .sourceignore file"
}

// brief cuts a text at maxSubject bytes, at the end of a character.
func brief(text string) string {
	if len(text) <= maxSubject {
		return text
	}
	at := maxSubject
	for at > 0 && text[at]&0xC0 == 0x80 {
		at--
	}
	return text[:at] + "…"
}
