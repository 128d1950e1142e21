package source

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/config"
)

// readConfig reads the repository's own configuration, not the user's and not the machine's.
func (r *localRepo) readConfig() error {
	name := filepath.Join(r.commonDir, "config")
	var err error
	if r.config, err = readConfigFile(name); errors.Is(err, os.ErrNotExist) {
		r.config = config.New()
		return nil
	}
	if err != nil {
		return failf(ErrUnsupportedRepository, "", "the repository's configuration %q cannot be read: %w", name, err)
	}
	// Most extensions do not change how objects and references are read; go-git refuses all it does not know, among them those
	// that CI checkouts set. These two do change it.
	extensions := r.config.Section("extensions")
	if format := extensions.Option("objectFormat"); format != "" && !strings.EqualFold(format, "sha1") {
		return failf(ErrUnsupportedRepository, "", "the repository %q uses %s object names; only SHA-1 repositories can be read", r.gitDir, format)
	}
	if format := extensions.Option("refStorage"); format != "" && !strings.EqualFold(format, "files") {
		return failf(ErrUnsupportedRepository, "convert a copy with `git refs migrate --ref-format=files`, or name the repository by its URL",
			"the repository %q keeps its references as %s; only files can be read", r.gitDir, format)
	}
	return nil
}

// remoteURL is the URL of origin or, without one, of the only remote.
func (r *localRepo) remoteURL() string {
	remotes := r.config.Section("remote").Subsections
	if len(remotes) == 1 {
		return remotes[0].Option("url")
	}
	for _, remote := range remotes {
		if remote.Name == "origin" {
			return remote.Option("url")
		}
	}
	return ""
}

func readConfigFile(name string) (*config.Config, error) {
	text, err := readFile(name, maxConfig)
	if err != nil {
		return nil, err
	}
	c := config.New()
	return c, config.NewDecoder(bytes.NewReader(text)).Decode(c)
}

// authorization is the header that CI checkouts leave for later fetches, or empty: in the repository's configuration, or in
// a file that it includes, as actions/checkout has it from version 6 on.
func (r *localRepo) authorization(l location) string {
	files := []*config.Config{r.config}
	for _, name := range r.included() {
		if c, err := readConfigFile(name); err == nil { // git skips those that it cannot read, too: runners remove them
			files = append(files, c)
		}
	}
	for _, file := range files {
		for _, sub := range file.Section("http").Subsections {
			of, err := parseURL(strings.TrimSuffix(sub.Name, "/") + "/x") // a host's URL, completed to a repository's
			if err != nil || of.scheme != l.scheme || of.host != l.host || of.port != l.port {
				continue
			}
			for _, header := range sub.OptionAll("extraheader") {
				name, value, ok := strings.Cut(header, ":")
				if ok && strings.EqualFold(strings.TrimSpace(name), "authorization") {
					return strings.TrimSpace(value)
				}
			}
		}
	}
	return ""
}

// included are the files that the configuration includes always, or for this Git folder.
func (r *localRepo) included() []string {
	var names []string
	add := func(paths []string) {
		for _, name := range paths {
			if !filepath.IsAbs(name) {
				name = filepath.Join(r.commonDir, name)
			}
			names = append(names, name)
		}
	}
	add(r.config.Section("include").OptionAll("path"))
	for _, sub := range r.config.Section("includeIf").Subsections {
		folder, ok := strings.CutPrefix(sub.Name, "gitdir:")
		if !ok {
			continue
		}
		match, err := filepath.Match(filepath.Clean(folder), r.gitDir)
		if resolved, e := filepath.EvalSymlinks(folder); e == nil && resolved == r.gitDir {
			match = true
		}
		if err == nil && match {
			add(sub.OptionAll("path"))
		}
	}
	return names
}
