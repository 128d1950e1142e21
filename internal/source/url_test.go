package source_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sluicerun/sluice/internal/source"
)

func TestNormalizeURL(t *testing.T) {
	for want, spellings := range map[string][]string{
		"https://github.com/o/r": {
			"https://github.com/o/r", "https://github.com/o/r.git", "https://github.com/o/r/", "https://github.com/o/r.git/",
			"https://GitHub.com/o/r", "HTTPS://github.com/o/r", "http://github.com/o/r", "https://github.com:443/o/r", "http://github.com:80/o/r",
			"https://token@github.com/o/r", "https://u:p@github.com/o/r.git", "https://github.com//o//r", "https://github.com/o/r?x=y#z",
			"ssh://git@github.com/o/r.git", "ssh://git@github.com:22/o/r", "git+ssh://git@github.com/o/r", "ssh://github.com/o/r",
			"git@github.com:o/r.git", "git@github.com:o/r", "git@github.com:/o/r", "github.com:o/r.git", " git@github.com:o/r\n",
			"ssh://git@ssh.github.com:443/o/r.git", // GitHub's SSH over the HTTPS port
		},
		"https://gitlab.example.org/group/sub/project": {
			"ssh://git@gitlab.example.org:2222/group/sub/project.git", "https://gitlab-ci-token:x@gitlab.example.org/group/sub/project.git",
		},
		"https://git.example.org:8443/o/r":            {"https://git.example.org:8443/o/r.git"},
		"https://[2001:db8::1]/o/r":                   {"ssh://git@[2001:db8::1]/o/r.git", "git@[2001:db8::1]:o/r.git"},
		"https://dev.azure.com/org/project/_git/repo": {"git@ssh.dev.azure.com:v3/org/project/repo", "https://org@dev.azure.com/org/project/_git/repo"},
		"https://github.com/o/R":                      {"git@github.com:o/R.git"},
		"file:///srv/git/r":                           {"file:///srv/git/r.git", "file:///srv/git/r/.git", "file://localhost/srv/git/r/"},
	} {
		for _, spelling := range spellings {
			got, err := source.NormalizeURL(spelling)
			if err != nil || got != want {
				t.Errorf("NormalizeURL(%q) = %q, %v; want %q", spelling, got, err, want)
			}
		}
		if again, err := source.NormalizeURL(want); err != nil || again != want {
			t.Errorf("normalised again, %q becomes %q, %v", want, again, err)
		}
	}
	for _, bad := range []string{"", ".", "/srv/git", "../r", "ftp://example.org/r", "https://", "https://example.org", "file://", "file://localhost", "https://exa mple.org/r"} {
		if got, err := source.NormalizeURL(bad); !errors.Is(err, source.ErrInvalidURL) {
			t.Errorf("NormalizeURL(%q) = %q, %v; want ErrInvalidURL", bad, got, err)
		}
	}
}

// Whatever a repository's configuration holds: no panic, a fixed point, no credential.
func FuzzNormalizeURL(f *testing.F) {
	for _, seed := range []string{"https://u:s3cr3t@github.com/o/r.git", "git@github.com:o/r", "file:///a/.git", "ssh://[::1]:22/~u/r", "a:b", "https://h/%2e%2e/x", "h:..", "git@h:a?b#c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		once, err := source.NormalizeURL(raw)
		if err != nil {
			if strings.Contains(raw, "://u:s3cr3t@") && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("%q gives the error %q", raw, err)
			}
			return
		}
		twice, err := source.NormalizeURL(once)
		if err != nil || twice != once {
			t.Errorf("%q becomes %q and then %q, %v", raw, once, twice, err)
		}
	})
}
