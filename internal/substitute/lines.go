package substitute

import (
	"io/fs"
	"regexp"
	"strings"

	"github.com/sluicerun/sluice/internal/flux"
)

// finder finds text in the files that objects were read from. An object may
// have got the text from elsewhere, a patch for example; then there is no
// line.
type finder struct {
	tree    fs.FS
	files   map[string][]string
	scanned int // bytes looked through
}

// variable returns the line of the first use of a variable, 0 if it is not in
// the object's file.
func (f *finder) variable(o flux.Object, name string) int {
	use := regexp.MustCompile(`(^|[^$])(\$\$)*\$\{#?` + regexp.QuoteMeta(name) + `([^_\pL\pN]|$)`)
	return f.find(o, use.MatchString)
}

// text returns the line of the first occurrence of a text.
func (f *finder) text(o flux.Object, s string) int {
	s = strings.TrimSuffix(s, "…")
	if s == "" {
		return 0
	}
	return f.find(o, func(line string) bool {
		_, rest, found := strings.Cut(line, s)
		// An expression that is not closed is not the same one closed.
		return found && (strings.HasSuffix(s, "}") || !strings.HasPrefix(rest, "}"))
	})
}

func (f *finder) find(o flux.Object, match func(string) bool) int {
	if f.tree == nil || o.File == "" {
		return 0
	}
	lines, ok := f.files[o.File]
	if !ok {
		// A file that cannot be read gives no lines, which is all that is
		// lost.
		if data, err := fs.ReadFile(f.tree, o.File); err == nil {
			lines = strings.Split(string(data), "\n")
		}
		if f.files == nil {
			f.files = map[string][]string{}
		}
		f.files[o.File] = lines
	}
	for _, line := range lines {
		f.scanned += len(line)
	}
	if f.scanned > maxScanned {
		return 0
	}
	// With several documents in the file, the object's own comes first.
	from := f.document(lines, o)
	for i := from; i < len(lines); i++ {
		if !strings.HasPrefix(strings.TrimSpace(lines[i]), "#") && match(lines[i]) {
			return i + 1
		}
	}
	for i := range lines[:from] {
		if !strings.HasPrefix(strings.TrimSpace(lines[i]), "#") && match(lines[i]) {
			return i + 1
		}
	}
	return 0
}

// document returns the index of the first line of the object's document, as
// far as kind and name tell; else 0.
func (f *finder) document(lines []string, o flux.Object) int {
	start, kind, name := 0, false, false
	for i, line := range lines {
		switch {
		case strings.HasPrefix(line, "---"):
			start, kind, name = i, false, false
		case strings.TrimSpace(line) == "kind: "+o.GetKind():
			kind = true
		case strings.TrimSpace(line) == "name: "+o.GetName():
			name = true
		}
		if kind && name {
			return start
		}
	}
	return 0
}
