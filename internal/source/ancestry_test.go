package source_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sluicerun/sluice/internal/gittest"
	"github.com/sluicerun/sluice/internal/source"
)

// relations in the repository of history, as seen from a commit.
var relations = []struct {
	at, other string
	want      source.Relation
}{
	{third, third, source.Relation{Kind: source.Same, Exact: true}},
	{third, second, source.Relation{Kind: source.Ancestor, Ahead: 1, Exact: true}},
	{third, first, source.Relation{Kind: source.Ancestor, Ahead: 2, Exact: true}},
	{first, third, source.Relation{Kind: source.Descendant, Behind: 2, Exact: true}},
	{third, branch, source.Relation{Kind: source.Diverged, Ahead: 1, Behind: 1, Exact: true}},
}

func ancestry(t *testing.T, c *source.Commit, other string) source.Relation {
	t.Helper()
	r, err := c.Ancestry(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAncestry(t *testing.T) {
	tidy(t)
	key, public := gittest.NewKey(t, "")
	for _, any := range []bool{true, false} {
		repo := gittest.New(t, history)
		ssh := gittest.ServeSSH(t, repo, any, public)
		for _, o := range []source.Options{
			{Repo: repo.Dir},
			{Repo: gittest.Serve(t, repo, gittest.HTTP{AnyCommit: any}).URL},
			{Repo: ssh.URL, Auth: source.Auth{SSHKey: key, KnownHosts: ssh.KnownHosts}},
		} {
			for _, tt := range relations {
				o.Revision = tt.at
				if got := ancestry(t, open(t, o), tt.other); got != tt.want {
					t.Errorf("%.4s, any commit %v: %.7s seen from %.7s is %+v, want %+v", o.Repo, any, tt.other, tt.at, got, tt.want)
				}
			}
		}
	}
}

// CI checkouts are shallow; the rest of the history comes from where they came from, with the credentials of either
// the caller or the checkout.
func TestAncestryOfAShallowCheckout(t *testing.T) {
	tidy(t)
	repo := gittest.New(t, history)
	server := gittest.Serve(t, repo, gittest.HTTP{Username: "ada", Password: "s3cr3t", AnyCommit: true})
	withUser := strings.Replace(server.URL, "://", "://ada:s3cr3t@", 1)
	shallow := func(t *testing.T) string {
		dir := filepath.Join(t.TempDir(), "checkout")
		gittest.Git(t, t.TempDir(), "clone", "-q", "--depth=1", withUser, dir)
		return dir
	}
	want := source.Relation{Kind: source.Ancestor, Ahead: 2, Exact: true}

	t.Run("the remote's URL has credentials", func(t *testing.T) { // older GitLab runners
		dir := shallow(t)
		c := open(t, source.Options{Repo: dir})
		if got := list(t, c.FS); len(got) != 3 {
			t.Errorf("files %q", got)
		}
		if got := ancestry(t, c, first); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		for range 2 {
			if got := ancestry(t, c, branch); got.Kind != source.Diverged || got.Ahead != 1 {
				t.Errorf("%+v", got)
			}
		}
		before := server.Requests()
		if got := ancestry(t, c, first); got != want {
			t.Errorf("asked again: %+v, want %+v", got, want)
		}
		if server.Requests() != before {
			t.Error("the history was fetched twice")
		}
		if gittest.Git(t, dir, "rev-parse", "--is-shallow-repository") != "true" {
			t.Error("the checkout was changed")
		}
	})
	t.Run("the configuration has a header", func(t *testing.T) { // actions/checkout
		dir := shallow(t)
		gittest.Git(t, dir, "remote", "set-url", "origin", server.URL)
		u, err := url.Parse(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		gittest.Git(t, dir, "config", "http."+u.Scheme+"://"+u.Host+"/.extraheader", "AUTHORIZATION: basic YWRhOnMzY3IzdA==")
		if got := ancestry(t, open(t, source.Options{Repo: dir}), first); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		gittest.Git(t, dir, "config", "http."+u.Scheme+"://"+u.Host+"/.extraheader", "AUTHORIZATION: basic wrongwrong")
		got := ancestry(t, open(t, source.Options{Repo: dir}), first)
		if got.Kind != source.Unknown || strings.Contains(got.Reason, "wrongwrong") {
			t.Errorf("with a wrong header: %+v", got)
		}

		gittest.Git(t, dir, "config", "--unset", "http."+u.Scheme+"://"+u.Host+"/.extraheader") // from version 6 on
		included := filepath.Join(t.TempDir(), "git-credentials.config")
		gittest.Git(t, dir, "config", "--file", included, "http."+u.Scheme+"://"+u.Host+"/.extraheader", "AUTHORIZATION: basic YWRhOnMzY3IzdA==")
		gittest.Git(t, dir, "config", "includeIf.gitdir:/github/workspace/.git.path", "/github/runner_temp/none")
		if got := ancestry(t, open(t, source.Options{Repo: dir}), first); got.Kind != source.Unknown {
			t.Errorf("without a header: %+v", got)
		}
		gittest.Git(t, dir, "config", "includeIf.gitdir:"+filepath.Join(dir, ".git")+".path", included)
		if got := ancestry(t, open(t, source.Options{Repo: dir}), first); got != want {
			t.Errorf("with an included header: %+v, want %+v", got, want)
		}
	})
	t.Run("the caller has credentials", func(t *testing.T) {
		dir := shallow(t)
		gittest.Git(t, dir, "remote", "set-url", "origin", server.URL)
		c := open(t, source.Options{Repo: dir, Auth: source.Auth{Username: "ada", Password: "s3cr3t"}})
		if got := ancestry(t, c, first); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
	t.Run("nobody has credentials", func(t *testing.T) {
		dir := shallow(t)
		gittest.Git(t, dir, "remote", "set-url", "origin", server.URL)
		got := ancestry(t, open(t, source.Options{Repo: dir}), first)
		if got.Kind != source.Unknown || got.Gone || got.Ahead != 0 || !strings.Contains(got.Reason, "asks for credentials") {
			t.Errorf("%+v", got)
		}
	})
	t.Run("the remote is a folder", func(t *testing.T) {
		dir := shallow(t)
		gittest.Git(t, dir, "remote", "set-url", "origin", repo.FileURL())
		if got := ancestry(t, open(t, source.Options{Repo: dir}), first); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
	t.Run("no remote", func(t *testing.T) {
		dir := shallow(t)
		gittest.Git(t, dir, "remote", "remove", "origin")
		got := ancestry(t, open(t, source.Options{Repo: dir}), first)
		if got.Kind != source.Unknown || got.Gone || !strings.Contains(got.Reason, "is not in the repository; it has no remote to ask") {
			t.Errorf("%+v", got)
		}
	})
	t.Run("a commit that was not pushed", func(t *testing.T) {
		dir := shallow(t)
		gittest.Git(t, dir, "commit", "-q", "--allow-empty", "-m", "local")
		got := ancestry(t, open(t, source.Options{Repo: dir}), first)
		if want := (source.Relation{Kind: source.Ancestor, Ahead: 3, Exact: true}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
	t.Run("a commit that is nowhere", func(t *testing.T) { // the recorded branch was rewritten
		c := open(t, source.Options{Repo: shallow(t)})
		for range 2 {
			got := ancestry(t, c, strings.Repeat("a", 40))
			if want := "commit aaaaaaa is in no branch or tag of " + server.URL; got.Kind != source.Unknown || !got.Gone || got.Reason != want {
				t.Errorf("%+v, want %q", got, want)
			}
		}
	})
	t.Run("revisions beyond the boundary", func(t *testing.T) {
		dir := shallow(t)
		refuse(t, source.Options{Repo: dir, Revision: "HEAD~1"}, source.ErrUnknownRevision, "where this shallow clone ends", "fetch all history")
		refuse(t, source.Options{Repo: dir, Revision: first}, source.ErrUnknownRevision, "it is a shallow clone", "fetch-depth: 0")
	})
}

// A branch that was rewritten: the commit that it had is told apart from one that a clone only lacks, and a server that still gives
// it by its hash, as forges do, says how far it is.
func TestAncestryOfARewrittenBranch(t *testing.T) {
	tidy(t)
	for _, any := range []bool{true, false} {
		repo := gittest.New(t, history)
		server := gittest.Serve(t, repo, gittest.HTTP{AnyCommit: any})
		dir := filepath.Join(t.TempDir(), "checkout")
		gittest.Git(t, t.TempDir(), "clone", "-q", "--single-branch", server.URL, dir)
		repo.Detach(first)
		lost := repo.Commit("a commit that is about to be forgotten")
		repo.Git("update-ref", "--no-deref", "HEAD", third)
		got := ancestry(t, open(t, source.Options{Repo: dir}), lost)
		if any && (got.Kind != source.Diverged || got.Ahead != 2 || got.Behind != 1) || !any && (got.Kind != source.Unknown || !got.Gone) {
			t.Errorf("any commit %v: %+v", any, got)
		}
	}
}

func TestAncestryErrors(t *testing.T) {
	repo := gittest.New(t, history)
	c := open(t, source.Options{Repo: repo.Dir})
	if _, err := c.Ancestry(t.Context(), "main"); err == nil || !strings.Contains(err.Error(), `"main" is not a full commit hash`) {
		t.Errorf("a branch as hash gave %v", err)
	}
	stop := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	server := gittest.Serve(t, repo, gittest.HTTP{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.UserAgent(), "(sluice)") {
				cancel(stop)
				<-r.Context().Done()
			}
			next.ServeHTTP(w, r)
		})
	}})
	dir := filepath.Join(t.TempDir(), "shallow")
	gittest.Git(t, t.TempDir(), "clone", "-q", "--depth=1", server.URL, dir)
	if _, err := open(t, source.Options{Repo: dir}).Ancestry(ctx, first); !errors.Is(err, stop) {
		t.Errorf("cancelled: %v, want the cause", err)
	}
}

// Against git itself, on histories of any shape: branches, merges of two and three, many roots of nothing in common.
func TestAncestryAgreesWithGit(t *testing.T) {
	for seed := range uint64(3) {
		random := rand.New(rand.NewPCG(seed, 1))
		repo := gittest.New(t, "")
		hashes := []string{repo.Commit("root")}
		for i := range 40 {
			repo.Detach(hashes[random.IntN(len(hashes))])
			var others []string
			for range random.IntN(3) {
				others = append(others, hashes[random.IntN(len(hashes))])
			}
			hashes = append(hashes, repo.Merge("commit "+strconv.Itoa(i), others))
		}
		for range 60 {
			at, other := hashes[random.IntN(len(hashes))], hashes[random.IntN(len(hashes))]
			counts := strings.Fields(repo.Git("rev-list", "--left-right", "--count", at+"..."+other))
			ahead, behind := number(t, counts[0]), number(t, counts[1])
			want := source.Relation{Kind: source.Diverged, Ahead: ahead, Behind: behind, Exact: true}
			switch {
			case at == other:
				want.Kind = source.Same
			case behind == 0:
				want.Kind = source.Ancestor
			case ahead == 0:
				want.Kind = source.Descendant
			}
			if got := ancestry(t, open(t, source.Options{Repo: repo.Dir, Revision: at}), other); got != want {
				t.Errorf("seed %d: %s seen from %s is %+v, want %+v", seed, other, at, got, want)
			}
		}
	}
}

// Clocks may lie: a commit's date before its parent's.
func TestAncestryDoesNotTrustDates(t *testing.T) {
	repo := gittest.New(t, history)
	tree := repo.Git("rev-parse", third+"^{tree}")
	old := repo.Git("-c", "user.name=x", "commit-tree", "-p", third, "-m", "before its parent", tree)
	if got := ancestry(t, open(t, source.Options{Repo: repo.Dir, Revision: old}), third); got.Kind != source.Ancestor || got.Ahead != 1 {
		t.Errorf("%+v", got)
	}
	if got := ancestry(t, open(t, source.Options{Repo: repo.Dir, Revision: first}), old); got.Kind != source.Descendant || got.Behind != 3 {
		t.Errorf("%+v", got)
	}
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
