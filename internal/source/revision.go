package source

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/xrash/smetrics"
)

// revision is what a user calls a commit, taken apart.
type revision struct {
	text   string // as it was given
	base   string // without ancestors; "" is HEAD
	parent int    // how many first parents up
}

var (
	ancestorSuffix = regexp.MustCompile(`(~[0-9]*|\^)$`)
	fullHash       = regexp.MustCompile(`^[0-9a-fA-F]{40}$`)
	sha256Hash     = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)
	shortHash      = regexp.MustCompile(`^[0-9a-fA-F]{4,39}$`)
)

const remedyRevision = "give a commit, a tag, a branch or a full reference such as refs/heads/main"

func parseRevision(text string) (revision, error) {
	r := revision{text: text, base: text}
	for {
		suffix := ancestorSuffix.FindString(r.base)
		if suffix == "" {
			break
		}
		n := 1
		if digits := strings.TrimLeft(suffix, "~^"); digits != "" {
			var err error
			if n, err = strconv.Atoi(digits); err != nil || n > 10_000 {
				return r, failf(ErrUnknownRevision, remedyRevision, "revision %q goes back too far", text)
			}
		}
		r.base, r.parent = strings.TrimSuffix(r.base, suffix), r.parent+n
	}
	if r.base == "HEAD" || r.base == "@" {
		r.base = ""
	}
	if sha256Hash.MatchString(r.base) {
		return r, failf(ErrUnsupportedRepository, "", "revision %q is a SHA-256 hash; only SHA-1 repositories can be read", text)
	}
	if strings.ContainsAny(r.base, " \t\n:?*[\\^~") || strings.HasPrefix(r.base, "-") || strings.Contains(r.base, "..") {
		return r, failf(ErrUnknownRevision, remedyRevision, "revision %q is not one commit's name", text)
	}
	return r, nil
}

// references are what a repository calls its commits.
type references struct {
	head       plumbing.Hash // zero when nothing was committed
	headBranch string        // the full reference that HEAD names; empty when it is detached
	byName     map[string]plumbing.Hash
	peeled     map[string]plumbing.Hash                   // what annotated tags stand for, as far as known
	peel       func(plumbing.Hash) (plumbing.Hash, error) // finds it out; nil where the server told all of it
}

// resolved is a reference that a revision named; without a name it is a hash, perhaps a short one.
type resolved struct {
	ref  string
	hash plumbing.Hash // of the reference, a tag object's if annotated; zero for a short hash
	hex  string        // of a hash
}

// resolve looks a revision up among the references. Full hashes come first, then references, then short hashes. A name that is
// a tag and also a branch is refused if they differ: Git would warn and take the tag, which is no way to choose what to deploy.
func (r *references) resolve(rev revision) (resolved, error) {
	name := rev.base
	if name == "" {
		return resolved{ref: r.headBranch, hash: r.head}, nil
	}
	if fullHash.MatchString(name) {
		return resolved{hash: plumbing.NewHash(name), hex: strings.ToLower(name)}, nil
	}
	if strings.HasPrefix(name, "refs/") {
		if hash, ok := r.byName[name]; ok {
			return resolved{ref: name, hash: hash}, nil
		}
		return resolved{}, r.unknown(rev)
	}
	tag, isTag := r.byName["refs/tags/"+name]
	branch, isBranch := r.byName["refs/heads/"+name]
	switch {
	case isTag && isBranch && r.target("refs/tags/"+name) != branch:
		return resolved{}, &Error{
			Is:         ErrAmbiguousRevision,
			Text:       fmt.Sprintf("revision %q is a tag (%.7s) and a branch (%.7s)", rev.text, r.target("refs/tags/"+name), branch),
			Remedy:     fmt.Sprintf("say refs/tags/%s or refs/heads/%s", name, name),
			Candidates: []string{"refs/tags/" + name, "refs/heads/" + name},
		}
	case isBranch:
		return resolved{ref: "refs/heads/" + name, hash: branch}, nil
	case isTag:
		return resolved{ref: "refs/tags/" + name, hash: tag}, nil
	}
	for _, ref := range []string{"refs/remotes/origin/" + name, "refs/remotes/" + name, "refs/" + name} {
		if hash, ok := r.byName[ref]; ok {
			return resolved{ref: ref, hash: hash}, nil
		}
	}
	if shortHash.MatchString(name) {
		return resolved{hex: strings.ToLower(name)}, nil
	}
	return resolved{}, r.unknown(rev)
}

// target is the commit behind a reference. A broken tag stands for itself, which no commit equals.
func (r *references) target(ref string) plumbing.Hash {
	if hash, ok := r.peeled[ref]; ok {
		return hash
	}
	hash := r.byName[ref]
	if r.peel != nil && strings.HasPrefix(ref, "refs/tags/") {
		if commit, err := r.peel(hash); err == nil {
			hash = commit
		}
		r.peeled[ref] = hash
	}
	return hash
}

// shortName is how people and Flux call a reference.
func shortName(ref string) string {
	for _, prefix := range []string{"refs/heads/", "refs/tags/", "refs/remotes/origin/"} {
		if short, ok := strings.CutPrefix(ref, prefix); ok {
			return short
		}
	}
	return ref
}

// nameOf finds the name of a commit that was given by its hash: HEAD's branch if that is where it is, else the caller's
// name, else the one branch or else the one tag that points to it. Two that do are no name.
func (r *references) nameOf(commit plumbing.Hash, known string) string {
	if r.headBranch != "" && r.head == commit {
		return shortName(r.headBranch)
	}
	if known != "" {
		return shortName(known)
	}
	for _, prefixes := range [][]string{{"refs/heads/", "refs/remotes/origin/"}, {"refs/tags/"}} {
		names := map[string]bool{}
		for ref := range r.byName {
			for _, prefix := range prefixes {
				short, ok := strings.CutPrefix(ref, prefix)
				if ok && short != "HEAD" && r.target(ref) == commit {
					names[short] = true
				}
			}
		}
		if len(names) == 1 {
			for name := range names {
				return name
			}
		}
		if len(names) > 1 {
			return ""
		}
	}
	return ""
}

// unknown lists what the revision may have meant: names that are near it, else the default branch and the first others.
func (r *references) unknown(rev revision) error {
	e := &Error{Is: ErrUnknownRevision, Remedy: remedyRevision, Text: fmt.Sprintf("unknown revision %q", rev.text)}
	type candidate struct {
		name string
		far  int
	}
	var all []candidate
	seen := map[string]bool{}
	for ref := range r.byName {
		if !strings.HasPrefix(ref, "refs/heads/") && !strings.HasPrefix(ref, "refs/tags/") && !strings.HasPrefix(ref, "refs/remotes/origin/") {
			continue
		}
		name := shortName(ref)
		if name == "HEAD" || seen[name] {
			continue
		}
		seen[name] = true
		all = append(all, candidate{name, distance(strings.ToLower(name), strings.ToLower(shortName(rev.base)))})
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Or(cmp.Compare(a.far, b.far), strings.Compare(a.name, b.name)) })
	for _, c := range all[:min(len(all), 5)] {
		e.Candidates = append(e.Candidates, c.name)
	}
	if len(e.Candidates) > 0 {
		e.Text += fmt.Sprintf("; the repository has %s", strings.Join(e.Candidates, ", "))
		if more := len(all) - len(e.Candidates); more > 0 {
			e.Text += fmt.Sprintf(" and %d more branches and tags", more)
		}
	}
	return e
}

// distance is how many letters must change (Levenshtein), with a name that contains the other being near.
func distance(a, b string) int {
	if b != "" && strings.Contains(a, b) || a != "" && strings.Contains(b, a) {
		return 1
	}
	return smetrics.WagnerFischer(a, b, 1, 1, 1)
}

// ambiguousHash is the error for a short hash that more than one commit has.
func ambiguousHash(rev revision, hashes []plumbing.Hash) error {
	e := &Error{Is: ErrAmbiguousRevision, Remedy: "give more digits"}
	for _, hash := range hashes {
		e.Candidates = append(e.Candidates, hash.String())
	}
	slices.Sort(e.Candidates)
	e.Text = fmt.Sprintf("revision %q is the beginning of %d commits: %s", rev.text, len(hashes), strings.Join(e.Candidates[:min(len(hashes), 5)], ", "))
	return e
}
