package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	kustypes "sigs.k8s.io/kustomize/api/types"
)

// What a commit may ask of a build. Kustomize has no such limits: a few lines can
// make it fill the memory, and neither that nor a stack that is full can be caught.
// So each is looked at before kustomize sees it. They are far from what
// repositories hold; docs/kustomizations.md lists them.
const (
	// maxFile is the size of one file, in bytes. An object may have 3 MiB
	// (maxObject), a file several of them.
	maxFile = 32 << 20
	// maxBytes is the size of all files of a build, each as often as it is read.
	maxBytes = 128 << 20
	// maxReads is how many files a build reads, each as often as it is read:
	// an overlay of two overlays of the same base reads that base twice, and
	// thirty floors of this more than there is time for.
	maxReads = 100_000
	// maxEntries is how many files and folders lie below the folder of a build
	// without a kustomization file, and maxManifests how many YAML files, which
	// all become a part of it. Git can hold the same folder at many places.
	maxEntries   = 100_000
	maxManifests = 50_000
	// maxNodes is how many values a YAML file may hold, each alias counted as
	// what it stands for. The largest manifests there are have some 100,000.
	// maxBuild is how many all files of a build may hold, by an estimate that can
	// be several times too high: ten thousand objects of two hundred values are
	// ordinary. Below it maxMemory bounds a build.
	maxNodes = 1_000_000
	maxBuild = 20_000_000
	// maxNesting is how deep maps and lists may lie within each other. Who
	// writes them out indents each level more: the text grows with the square.
	maxNesting = 500
	// maxFloors is how many bases and components may stand on each other.
	maxFloors = 100
	// maxObject is the size of one object, in bytes of JSON: no API server
	// takes a larger request unless it was built to.
	maxObject = 3 << 20
)

// maxMemory is how much memory the process may have while builds run, in bytes.
// GOMEMLIMIT, which Go's runtime reads, raises it.
var maxMemory = max(4<<30, allowedMemory())

// allowedMemory is the value of GOMEMLIMIT, 0 if it is not set.
func allowedMemory() uint64 {
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 {
		return uint64(limit)
	}
	return 0
}

// Kustomize's JSON patches can copy what they have copied, so that forty lines
// would make 2^40 values. API servers set the same limit.
func init() { jsonpatch.AccumulatedCopySizeLimit = maxObject }

// tooMuch says that a limit is passed. Kustomize is left with a panic of it: it
// takes an error of its file system for a file that is missing, and looks for
// it in other places.
type tooMuch struct {
	file   string // in the tree; "" if it is about the whole build
	err    error
	remedy string
}

func (t *tooMuch) Error() string { return t.err.Error() }

// Unwrap returns what is wrong.
func (t *tooMuch) Unwrap() error { return t.err }

// refuse ends the build.
func refuse(file, remedy, format string, args ...any) {
	panic(&tooMuch{file: file, err: fmt.Errorf(format, args...), remedy: remedy})
}

// meter counts what a build has read.
type meter struct{ bytes, reads, values int }

// read counts a file that is read once more.
func (m *meter) read(size, values int) {
	m.reads++
	m.bytes += size
	m.values += values
	const smaller = "build fewer things at once: divide the Kustomization"
	switch {
	case m.reads > maxReads:
		refuse("", "bases that are included many times are read as often: "+smaller, "the build reads more than %d files", maxReads)
	case m.bytes > maxBytes:
		refuse("", smaller, "the build reads more than %s", mebibytes(maxBytes))
	case m.values > maxBuild:
		refuse("", smaller, "the files of the build hold more than %d values", maxBuild)
	}
}

// sized refuses a file beyond maxFile.
func sized(info fs.FileInfo) *tooMuch {
	if info.Size() <= maxFile {
		return nil
	}
	return &tooMuch{err: fmt.Errorf("the file has %s, more than the %s that a build reads", mebibytes(info.Size()), mebibytes(maxFile)),
		remedy: "divide the file, or leave it out of the build, by a .sourceignore file for instance"}
}

func mebibytes(size int64) string {
	if size < 10<<20 && size%(1<<20) != 0 {
		return fmt.Sprintf("%.1f MiB", float64(size)/(1<<20))
	}
	return fmt.Sprintf("%d MiB", size>>20)
}

// weigh returns how many values a file holds, at most, and an error if a parser
// of YAML would need too much for it. A file that does not parse is left to the
// parser that reads it: not all files are YAML.
//
// Most files cannot be too much, which one look at their bytes shows. The others
// are parsed, each document by itself, if that cannot be too much.
func weigh(content []byte) (values int, err error) {
	suspect, most := false, 0
	for doc := range documentsOf(content) {
		e := estimated(doc)
		values += e.values
		most = max(most, e.values)
		suspect = suspect || e.nesting > maxNesting || e.aliases
	}
	switch {
	case most > 2*maxNodes+maxNodes/4:
		// Even the estimate of text that is no YAML is below this up to a size
		// of 1 MiB, which is what a ConfigMap holds.
		return values, fmt.Errorf("it holds more than %d values", maxNodes)
	case !suspect && values <= maxNodes:
		return values, nil
	}
	values = 0
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var doc yaml.Node
		if err := decoder.Decode(&doc); err != nil {
			if !errors.Is(err, io.EOF) {
				values = 0 // not YAML
			}
			return values, nil
		}
		if nesting(&doc) > maxNesting {
			return values, fmt.Errorf("its maps and lists lie more than %d deep within each other", maxNesting)
		}
		count := expanded(&doc, map[*yaml.Node]int{})
		if values += count; values < maxNodes {
			continue
		}
		if bytes.ContainsRune(content, '*') && count >= maxNodes && written(&doc) < maxNodes {
			return values, fmt.Errorf("its YAML aliases expand to more than %d values", maxNodes)
		}
		return values, fmt.Errorf("it holds more than %d values", maxNodes)
	}
}

// documentsOf yields the documents of a YAML stream: a line that begins with
// "---" always begins one.
func documentsOf(content []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(content) > 0 {
			doc, rest := content, []byte(nil)
			if at := bytes.Index(content[1:], []byte("\n---")); at >= 0 {
				doc, rest = content[:at+2], content[at+2:]
			}
			if !yield(doc) {
				return
			}
			content = rest
		}
	}
}

// estimate is what a document can be at most.
type estimate struct {
	values, nesting int
	aliases         bool
}

// estimated looks at the bytes of a document only. A value of YAML takes a sign of
// its own: a colon for the two of a key and its value, a dash or a question mark
// before a blank, or a comma or bracket between brackets. A level of nesting takes
// a column of indentation for a map and a list in it, or a bracket.
func estimated(doc []byte) estimate {
	e := estimate{values: 1}
	anchor, alias := false, false
	open, deepest, indent, widest := 0, 0, 0, 0
	start := true // of a line: only blanks and dashes so far
	for i, c := range doc {
		switch c {
		case '\n':
			widest = max(widest, indent)
			start, indent = true, 0
			continue
		case ':', ',':
			e.values += 2
		case '[', '{':
			e.values += 2
			open++
			deepest = max(deepest, open)
		case ']', '}':
			open = max(0, open-1)
		case '-', '?':
			if i+1 == len(doc) || doc[i+1] == ' ' || doc[i+1] == '\n' || doc[i+1] == '\t' || doc[i+1] == '\r' {
				e.values += 2
				if start {
					indent++
				}
				continue
			}
		case '&':
			anchor = true
		case '*':
			alias = true
		}
		if start && (c == ' ' || c == '\t') {
			indent++
			continue
		}
		start = false
	}
	e.nesting = 2*max(widest, indent) + deepest + 2 // a map or a list at the margin, and one in it
	e.aliases = anchor && alias
	return e
}

// nesting returns how deep maps and lists lie within each other, aliases
// followed; an anchor within itself has no end, which expanded tells.
func nesting(doc *yaml.Node) int {
	known := map[*yaml.Node]int{}
	var depth func(n *yaml.Node) int
	depth = func(n *yaml.Node) int {
		if n.Kind == yaml.AliasNode {
			return depth(n.Alias)
		}
		if n.Kind == yaml.ScalarNode {
			return 0
		}
		if d, ok := known[n]; ok {
			return d
		}
		known[n] = 0
		below := 0
		for _, child := range n.Content {
			below = max(below, depth(child))
		}
		if n.Kind != yaml.DocumentNode {
			below++
		}
		known[n] = below
		return below
	}
	return depth(doc)
}

// expanded counts the values below a node, each alias as what it stands for, up
// to maxNodes. An anchor that contains itself has no end.
func expanded(n *yaml.Node, known map[*yaml.Node]int) int {
	if n.Kind == yaml.ScalarNode {
		return 1
	}
	if count, ok := known[n]; ok {
		return count
	}
	known[n] = maxNodes // while it is being counted
	count := 1
	if n.Kind == yaml.AliasNode {
		count = expanded(n.Alias, known)
	}
	for _, child := range n.Content {
		if count = min(count+expanded(child, known), maxNodes); count == maxNodes {
			break
		}
	}
	known[n] = count
	return count
}

// written counts the values below a node as they stand there.
func written(n *yaml.Node) int {
	count := 1
	for _, child := range n.Content {
		count += written(child)
	}
	return count
}

// Weigh returns an error if a parser of YAML would need too much for a text: for
// values or levels beyond those that a file of a build may hold.
func Weigh(text []byte) error {
	_, err := weigh(text)
	return err
}

// embedded refuses what is YAML within a kustomization file's own text, and
// follows the bases: kustomize builds each within that which names it.
func (b *builder) embedded(file, dir string, k *kustypes.Kustomization) {
	check := func(field string, text string) {
		if _, err := weigh([]byte(text)); err != nil {
			refuse(file, "write out what is needed, and no more", "%s: %w", field, err)
		}
	}
	deprecated := k.PatchesJson6902 //lint:ignore SA1019 it is built all the same
	for _, list := range []struct {
		field   string
		patches []kustypes.Patch
	}{{"patches", k.Patches}, {"patchesJson6902", deprecated}} {
		for i, p := range list.patches {
			check(fmt.Sprintf("%s[%d]", list.field, i), p.Patch)
		}
	}
	//lint:ignore SA1019 as above
	for i, p := range k.PatchesStrategicMerge {
		check(fmt.Sprintf("patchesStrategicMerge[%d]", i), string(p))
	}
	for _, list := range []struct {
		field   string
		entries []string
	}{
		//lint:ignore SA1019 as above
		{"resources", k.Resources}, {"components", k.Components}, {"bases", k.Bases},
		{"generators", k.Generators}, {"transformers", k.Transformers}, {"validators", k.Validators},
	} {
		for i, entry := range list.entries {
			check(fmt.Sprintf("%s[%d]", list.field, i), entry)
			b.permitted(file, list.field, entry)
			if base := path.Join(dir, entry); b.floors[base] <= b.floors[dir] {
				b.floors[base] = b.floors[dir] + 1
			}
		}
	}
	b.contentOnly(dir, k)
	if b.floors[dir] > maxFloors {
		refuse(file, "include bases directly, or correct the one that leads back to itself", "more than %d bases stand on each other", maxFloors)
	}
}

// contentOnly notes the files of generators: each becomes one string, whatever it
// holds. One that is a resource as well is read as such.
func (b *builder) contentOnly(dir string, k *kustypes.Kustomization) {
	var sources []kustypes.KvPairSources
	for _, g := range k.ConfigMapGenerator {
		sources = append(sources, g.KvPairSources)
	}
	for _, g := range k.SecretGenerator {
		sources = append(sources, g.KvPairSources)
	}
	inDir := func(name string) string {
		rel, _ := inTree(path.Join(dir, name)) // what is no file of the tree is never looked up
		return rel
	}
	for _, s := range sources {
		for _, file := range s.FileSources {
			if _, name, named := strings.Cut(file, "="); named {
				file = name
			}
			b.tree.strings[inDir(file)] = true
		}
		for _, file := range append([]string{s.EnvSource}, s.EnvSources...) {
			b.tree.strings[inDir(file)] = true
		}
	}
	for _, resource := range k.Resources {
		delete(b.tree.strings, inDir(resource))
	}
}

// memory is how many bytes the process has in use or not yet collected.
func memory() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// watchEvery is how often the memory is looked at while a build runs. What
// kustomize multiplies, names by prefixes or values by replacements, grows in steps
// that take longer.
const watchEvery = 20 * time.Millisecond

// exhausted is closed when the process has more memory than the limit before the
// context ends. Only then: kustomize cannot be stopped, so a caller who goes on must
// be about to end.
func exhausted(ctx context.Context, limit uint64) <-chan struct{} {
	full := make(chan struct{})
	go func() {
		ticker := time.NewTicker(watchEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if memory() <= limit {
					continue
				}
				// What nobody uses any more counts too until it is collected:
				// when that is, is no matter of the repository.
				runtime.GC()
				if memory() > limit {
					close(full)
					return
				}
			}
		}
	}()
	return full
}
