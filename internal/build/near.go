package build

import (
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/xrash/smetrics"
)

// maxNear is how many candidates a message names.
const maxNear = 3

// maxCompared is how long a name may be to be compared letter by letter.
const maxCompared = 300

func abs(n int) int { return max(n, -n) }

// maxSeen is how many files and folders are looked at for them.
const maxSeen = 50_000

// nearFolders returns folders of the tree, quoted, that a missing path may
// have meant.
func (b *builder) nearFolders(missing string) []string {
	var folders []string
	seen := 0
	// What cannot be read is no candidate.
	_ = fs.WalkDir(b.tree.tree, ".", func(name string, e fs.DirEntry, err error) error {
		if seen++; seen > maxSeen {
			return fs.SkipAll
		}
		if err != nil {
			return fs.SkipDir
		}
		if e.IsDir() && name != "." {
			folders = append(folders, name)
		}
		return nil
	})
	return nearest(missing, folders)
}

// nearFiles returns files beside a missing one, quoted.
func (b *builder) nearFiles(missing string) []string {
	names, err := b.tree.list(path.Dir(missing))
	if err != nil {
		return b.nearFolders(missing)
	}
	near := nearest(path.Base(missing), names)
	return near
}

// nearest picks the names that differ least from the one that is missing.
func nearest(missing string, names []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	var near []candidate
	for _, n := range names {
		few := max(2, len(missing)/4)
		d := few + 1
		if len(missing) <= maxCompared && abs(len(n)-len(missing)) <= few {
			d = smetrics.WagnerFischer(missing, n, 1, 1, 1)
		}
		switch {
		case d <= few:
		case path.Base(n) == path.Base(missing):
			d = len(missing)
		default:
			continue
		}
		near = append(near, candidate{n, d})
	}
	slices.SortFunc(near, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), strings.Compare(a.name, b.name))
	})
	var quoted []string
	for _, c := range near[:min(len(near), maxNear)] {
		quoted = append(quoted, fmt.Sprintf("%q", c.name))
	}
	return quoted
}
