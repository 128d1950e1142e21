package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
)

// ignoreFile is the name of the files with patterns.
const ignoreFile = ".sourceignore"

var (
	// alwaysIgnored come before all other patterns (S10.36).
	alwaysIgnored = []string{".git/", ".gitignore", ".gitmodules", ".gitattributes"}
	// ignoredByDefault are followed only if there are no other patterns (S10.37).
	ignoredByDefault = []string{
		"*.jpg", "*.jpeg", "*.gif", "*.png", "*.wmv", "*.flv", "*.tar.gz", "*.zip",
		".github/", ".circleci/", ".travis.yml", ".gitlab-ci.yml", "appveyor.yml", ".drone.yml", "cloudbuild.yaml",
		"codeship-services.yml", "codeship-steps.yml",
		"**/.goreleaser.yml", "**/.sops.yaml", "**/.flux.yaml",
	}
)

// rule is a pattern and where it is from.
type rule struct {
	gitignore.Pattern
	text string
	// from is a .sourceignore file or "spec.ignore"; empty for Flux's own.
	from string
	// scoped is set if it counts for a folder below the root only.
	scoped bool
}

func (r *rule) String() string {
	if r.from == "" {
		return fmt.Sprintf("%q, which Flux ignores by default", r.text)
	}
	return fmt.Sprintf("%q in %s", r.text, r.from)
}

func ownRules(patterns []string) []rule {
	rules := make([]rule, len(patterns))
	for i, text := range patterns {
		rules[i] = rule{Pattern: gitignore.ParsePattern(text, nil), text: text}
	}
	return rules
}

// readRules reads patterns, for the folder that domain names.
func readRules(from string, r io.Reader, domain []string) ([]rule, error) {
	var rules []rule
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		text := lines.Text()
		if strings.HasPrefix(text, "#") || strings.TrimSpace(text) == "" {
			continue
		}
		rules = append(rules, rule{Pattern: gitignore.ParsePattern(text, domain), text: text, from: from, scoped: len(domain) > 0})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s cannot be read after pattern %d: %w", from, len(rules), err)
	}
	return rules, nil
}

// anywhere says whether the rule matches a path exactly if it matches one of
// the path's names by itself. It is false where that takes more than a look.
func (r *rule) anywhere() bool {
	slashes := strings.Count(r.text, "/")
	return !r.scoped && (slashes == 0 || slashes == 1 && strings.HasSuffix(strings.TrimRight(r.text, " "), "/"))
}

// revives says whether the rule brings back what it matches.
func (r *rule) revives() bool { return strings.HasPrefix(r.text, "!") }

// ignoreRules collects the patterns of a tree's .sourceignore files.
func ignoreRules(tree fs.FS) ([]rule, error) {
	var rules []rule
	files := 0
	within := func(string) (bool, error) { return true, nil }
	if t, ok := tree.(*treeFS); ok {
		within = t.ignoreFiles()
	}
	var collect func(folder string, domain []string) error
	collect = func(folder string, domain []string) error {
		if some, err := within(folder); err != nil || !some {
			return err
		}
		more, read, err := folderRules(tree, folder, domain)
		if err != nil {
			return err
		}
		if read {
			files++
		}
		if rules = append(rules, more...); len(rules) > maxRules || files > maxIgnoreFiles {
			return fmt.Errorf("the repository holds more than %d %s files, or more than %d patterns in them", maxIgnoreFiles, ignoreFile, maxRules)
		}
		entries, err := listing(tree, folder)
		if err != nil {
			return fmt.Errorf("looking for %s files: %w", ignoreFile, err)
		}
		for _, e := range entries {
			if !e.IsDir() || e.Name() == ".git" {
				continue
			}
			if err := collect(path.Join(folder, e.Name()), append(slices.Clip(domain), e.Name())); err != nil {
				return err
			}
		}
		return nil
	}
	return rules, collect(".", nil)
}

// ignoreFiles returns a function that says whether a folder or one below it has a
// .sourceignore, or something of that name. Trees are told apart by their hashes,
// each is read once: a commit may hold the same one at more places than could be
// walked to.
func (t *treeFS) ignoreFiles() func(folder string) (bool, error) {
	known := map[plumbing.Hash]bool{}
	var look func(hash plumbing.Hash, depth int) (bool, error)
	look = func(hash plumbing.Hash, depth int) (bool, error) {
		if some, ok := known[hash]; ok {
			return some, nil
		}
		if depth > maxPath/2 {
			return false, fmt.Errorf("folders lie more than %d deep in each other", maxPath/2)
		}
		entries, err := t.objects.tree(hash)
		if err != nil {
			return false, explainMissing(err)
		}
		some := false
		for _, e := range entries {
			some = some || e.Name == ignoreFile
			if e.Mode != filemode.Dir || e.Name == ".git" {
				continue
			}
			below, err := look(e.Hash, depth+1)
			if err != nil {
				return false, err
			}
			some = some || below
		}
		known[hash] = some
		return some, nil
	}
	return func(name string) (bool, error) {
		e, err := t.find("look", name, func(*folder) {})
		if err != nil {
			return false, err
		}
		some, err := look(e.dir.hash, 0)
		if err != nil {
			return false, fmt.Errorf("looking for %s files: %w", ignoreFile, err)
		}
		return some, nil
	}
}

// folderRules reads a folder's own .sourceignore. Other than everything else
// it may be a symbolic link: Flux reads it in a checkout, before links are
// dropped.
func folderRules(tree fs.FS, folder string, domain []string) (rules []rule, read bool, err error) {
	name := path.Join(folder, ignoreFile)
	open := fs.ReadFile
	if t, ok := tree.(*treeFS); ok {
		open = func(_ fs.FS, name string) ([]byte, error) { return t.readThrough(name) }
	} else if info, err := fs.Stat(tree, name); err == nil && info.IsDir() {
		return nil, false, nil // a folder holds no patterns, whatever its name
	}
	data, err := open(tree, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("reading patterns: %w", err)
	}
	rules, err = readRules(name, strings.NewReader(string(data)), domain)
	return rules, true, err
}

// listing lists a folder without its being looked at: links that are only
// passed by are nobody's concern (see [Commit.Dropped]).
func listing(tree fs.FS, folder string) ([]fs.DirEntry, error) {
	if t, ok := tree.(*treeFS); ok {
		return t.list(folder)
	}
	return fs.ReadDir(tree, folder)
}
