package build

import (
	"bytes"
	"log"
	"os"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/openapi"
)

// Kustomize keeps its schema in global variables, which is why Flux builds one
// after the other (S2.35). What a build does with them is decided by the files
// that it reads: only the field "openapi" of a kustomization file, its own or that of
// a base, puts another schema there; all other builds only read the built-in one,
// which is safe once it has been loaded. The same holds for what kustomize prints:
// it tells of deprecated fields and a few more oddities on standard error and
// through the log package, both global as well.
//
// So builds run side by side, until one is about to read a file after which
// it could change or use what is global. It is given up at that point, before
// anything has happened, waits until it is alone, and begins again.

// allTurns is how many builds run at once. They keep a processor busy each, and
// memory with it.
var allTurns = int64(min(runtime.GOMAXPROCS(0), 16))

// turns are held by the builds that run: one by each, or all by one that has to
// be alone. They are given out in the order in which they are asked for.
var turns = semaphore.NewWeighted(allTurns)

// needsToBeAlone is what a build panics with when it has to begin again with
// nothing beside it. An error would not do: kustomize might take it for a file
// that is not there, and look for that elsewhere.
type needsToBeAlone struct{}

// Warm begins to read kustomize's own schema of Kubernetes, which the first build
// of a process would wait for, a good part of its time. A caller that is going to
// build has that done while it still reads Git. It returns at once; a build that
// comes too early waits.
func Warm() { go openapi.Schema() }

// inTurn builds and gives back the turns that the caller holds. alone says that
// there is no result yet.
func (b *builder) inTurn(held int64) (result Result, err error, alone bool) {
	defer turns.Release(held)
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(needsToBeAlone); !ok {
				panic(r)
			}
			alone = true
		}
	}()
	if !b.alone {
		if result, ok := b.recall(); ok {
			return result, nil, false
		}
	}
	// A schema of the repository adds to the built-in one, and a build beside
	// others must not be the one that loads it: so that one has to be there first.
	openapi.Schema()
	began := time.Now()
	if result, err = b.build(); err == nil {
		result.Took = time.Since(began)
		b.keep(result)
	}
	return result, err, false
}

// listen prepares what is global for a run of kustomize. The function that it
// returns puts everything back, and returns the lines that kustomize has printed.
func (b *builder) listen() func(panicked bool) []string {
	if !b.alone {
		return func(bool) []string { return nil }
	}
	openapi.Schema()
	var said strings.Builder
	writer, flags := log.Writer(), log.Flags()
	log.SetOutput(&said)
	log.SetFlags(0)
	b.silenced = func() {}
	return func(panicked bool) []string {
		log.SetOutput(writer)
		log.SetFlags(flags)
		b.silenced()
		if b.customSchema || panicked {
			// The next build must not see what this one put there (S2.26).
			openapi.ResetOpenAPI()
		}
		var lines []string
		for line := range strings.Lines(said.String()) {
			if !strings.Contains(line, "'--reorder'") { // of an option of the kustomize command, which nobody gave
				lines = append(lines, line)
			}
		}
		return lines
	}
}

// comparing finds selectors by which kustomize compares numbers: it logs of
// values that are none. The selectors of Kubernetes' own manifests are maps.
var comparing = regexp.MustCompile(`(?s)(label|annotation)selector["']?\s*:[ \t]*[^\s{#].*[<>]`)

// inspect sees every file before kustomize does. It notes the deprecated fields
// of kustomization files, refuses what must not be built, and finds out whether the
// build has to be alone. name is empty for a file of a remote base.
func (b *builder) inspect(name, at string, data []byte) {
	if lower := bytes.ToLower(data); bytes.Contains(lower, []byte("git::")) || bytes.Contains(lower, []byte("selector")) && comparing.Match(lower) {
		b.needAlone() // it may log
	}
	if !slices.Contains(kustomizationFiles, path.Base(at)) {
		return
	}
	var k kustypes.Kustomization
	if err := k.Unmarshal(data); err != nil {
		return // kustomize reports it itself
	}
	b.embedded(name, path.Dir(at), &k)
	if len(k.OpenAPI) > 0 {
		b.needAlone()
		b.customSchema = true
	}
	//lint:ignore SA1019 what is deprecated is used all the same
	if k.SortOptions != nil || len(k.Vars) > 0 {
		b.needAlone() // it logs
	}
	messages := k.CheckDeprecatedFields()
	if messages == nil || len(*messages) == 0 {
		return
	}
	b.needAlone()
	b.silence()
	if name == "" {
		return // not the user's to change
	}
	for _, m := range *messages {
		text, hint, _ := strings.Cut(strings.TrimPrefix(oneLine(m), "# Warning: "), ". ")
		n := Notice{Code: "deprecated-field", File: name, Text: text, Hint: strings.TrimSuffix(hint, ".")}
		if name == b.file && b.generated {
			n.File = b.k.File
		}
		b.notices = append(b.notices, n)
	}
}

// needAlone gives the build up unless it is alone.
func (b *builder) needAlone() {
	if !b.alone {
		panic(needsToBeAlone{})
	}
}

// silence keeps kustomize from writing to the process's standard error until
// the end of the run.
func (b *builder) silence() {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return // then its lines appear: a blemish, no failure
	}
	stderr, before := os.Stderr, b.silenced
	os.Stderr = null
	b.silenced = func() {
		os.Stderr = stderr
		_ = null.Close() // nothing was kept that could be lost
		before()
	}
}
