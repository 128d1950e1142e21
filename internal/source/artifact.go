package source

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
)

// artifacts are the filtered views of one commit, made when they are first
// wanted.
type artifacts struct {
	mu    sync.Mutex
	read  bool
	rules []rule // of the .sourceignore files
	views map[string]*view

	// ignored has its own lock: views report while they are in use.
	ignoredMu sync.Mutex
	ignored   map[string]string // path to reason
}

// Artifact is FS as Flux would pack it for a source with this spec.ignore, which may be nil: see [Filter]. There is one view
// for each spec.ignore, however often it is asked for; the tree is walked once for all of them. An error is tried again at the
// next call. Artifact is safe for concurrent use.
func (c *Commit) Artifact(ignore *string) (fs.FS, error) {
	a := &c.artifacts
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.read {
		rules, err := ignoreRules(c.FS)
		if err != nil {
			return nil, err
		}
		a.read, a.rules, a.views = true, rules, map[string]*view{}
	}
	key := ""
	if ignore != nil {
		key = *ignore
	}
	if known, ok := a.views[key]; ok {
		return known, nil
	}
	made, err := newView(c.FS, a.rules, ignore)
	if err != nil {
		return nil, err
	}
	made.ignored = a.note
	a.views[key] = made
	return made, nil
}

// note remembers the first reason for each path.
func (a *artifacts) note(name, reason string) {
	a.ignoredMu.Lock()
	defer a.ignoredMu.Unlock()
	if a.ignored == nil {
		a.ignored = map[string]string{}
	}
	if _, known := a.ignored[name]; !known {
		a.ignored[name] = reason
	}
}

// ignoredSoFar is in no order.
func (a *artifacts) ignoredSoFar() []Dropped {
	a.ignoredMu.Lock()
	defer a.ignoredMu.Unlock()
	list := make([]Dropped, 0, len(a.ignored))
	for name, reason := range a.ignored {
		list = append(list, Dropped{Path: name, Kind: "ignored", Reason: "it " + reason})
	}
	return list
}

// maxLinks is how many symbolic links in a row are followed.
const maxLinks = 10

// readThrough reads a file as it is in a checkout, where it may be a symbolic
// link to another file of the tree. Links to what is not in the tree, and
// folders, hold nothing: [fs.ErrNotExist]. A link that leads through a linked
// folder is an error, as it is not known here where that is.
func (t *treeFS) readThrough(name string) ([]byte, error) {
	at := name
	for range maxLinks {
		var dir *folder
		e, err := t.find("read", at, func(d *folder) { dir = d })
		if err == nil {
			if e.mode.IsDir() {
				return nil, &fs.PathError{Op: "read", Path: at, Err: fs.ErrNotExist}
			}
			return t.read("read", e)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		link := dir.linkTo(at)
		switch {
		case link == nil:
			return nil, err
		case link.Path != at:
			return nil, fmt.Errorf("%q links to %q, which leads through another link: make it a link to the file itself", name, at)
		}
		target, err := t.objects.content(link.link)
		if err != nil {
			return nil, &fs.PathError{Op: "readlink", Path: at, Err: explainMissing(err)}
		}
		to := path.Join(path.Dir(at), string(target))
		if path.IsAbs(string(target)) || !fs.ValidPath(to) {
			return nil, &fs.PathError{Op: "readlink", Path: at, Err: fs.ErrNotExist} // no commit holds it
		}
		at = to
	}
	return nil, fmt.Errorf("%q is a symbolic link that leads to more than %d others", name, maxLinks)
}

// linkTo returns the folder's symbolic link that is the path or that it leads
// through; nil if there is none.
func (d *folder) linkTo(name string) *skipped {
	for i, s := range d.skipped {
		if s.Kind == "symlink" && (s.Path == name || strings.HasPrefix(name, s.Path+"/")) {
			return &d.skipped[i]
		}
	}
	return nil
}
