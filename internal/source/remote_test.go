package source_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/sluicerun/sluice/internal/gittest"
	"github.com/sluicerun/sluice/internal/retry"
	"github.com/sluicerun/sluice/internal/source"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// tidy makes the test fail if temporary files are left when it has ended.
func tidy(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	})
}

// Over every transport, with a generous and with a plain server, a revision names the commit that it names locally.
func TestRemoteRevisions(t *testing.T) {
	tidy(t)
	key, public := gittest.NewKey(t, "")
	for _, any := range []bool{true, false} {
		repo := gittest.New(t, history)
		repo.SetRef("refs/pull/7/head", branch)
		plain := gittest.Serve(t, repo, gittest.HTTP{AnyCommit: any})
		tls := gittest.Serve(t, repo, gittest.HTTP{AnyCommit: any, TLS: true})
		secure := gittest.ServeSSH(t, repo, any, public)
		for _, o := range []source.Options{
			{Repo: plain.URL},
			{Repo: tls.URL + "/", Auth: source.Auth{CA: tls.CA}},
			{Repo: secure.URL, Auth: source.Auth{SSHKey: key, KnownHosts: secure.KnownHosts}},
		} {
			for _, tt := range revisions {
				t.Run(fmt.Sprintf("%v/%.5s/%s", any, o.Repo, tt.rev), func(t *testing.T) {
					o.Revision = tt.rev
					c := open(t, o)
					if c.Revision != tt.want {
						t.Errorf("revision is %s, want %s", c.Revision, tt.want)
					}
					if c.Hash == third {
						if err := fstest.TestFS(c.FS, "apps/base/größe.yaml", "run.sh"); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
	}
}

// One fetch of one commit: two requests, and without its parents.
func TestFetchesLittle(t *testing.T) {
	repo := gittest.New(t, history)
	server := gittest.Serve(t, repo, gittest.HTTP{AnyCommit: true})
	for _, rev := range []string{"", "v1.1.0", second} {
		before := server.Requests()
		c := open(t, source.Options{Repo: server.URL, Revision: rev})
		if got := server.Requests() - before; got != 2 {
			t.Errorf("revision %q took %d requests, want 2", rev, got)
		}
		if c.HasObject(first) {
			t.Errorf("revision %q fetched the history", rev)
		}
	}
}

func TestRemoteUnknownRevisions(t *testing.T) {
	tidy(t)
	repo := gittest.New(t, history)
	gone := repo.Commit("rewritten")
	repo.SetRef("refs/heads/main", third)
	for _, any := range []bool{true, false} {
		server := gittest.Serve(t, repo, gittest.HTTP{AnyCommit: any})
		if !any {
			repo.Git("config", "--unset", "uploadpack.allowAnySHA1InWant")
		}
		o := source.Options{Repo: server.URL}
		for _, rev := range []string{strings.Repeat("a", 40), gone[:8]} {
			o.Revision = rev
			refuse(t, o, source.ErrUnknownRevision, "no branch or tag of "+server.URL+" holds this commit", "was it pushed?")
		}
		o.Revision = "mian"
		refuse(t, o, source.ErrUnknownRevision, `unknown revision "mian"; the repository has main, `, "refs/heads/main")
		o.Revision = "main~9"
		refuse(t, o, source.ErrUnknownRevision, "goes back beyond the first commit", "")
	}
}

func TestEmptyRemote(t *testing.T) {
	tidy(t)
	key, public := gittest.NewKey(t, "")
	repo := gittest.New(t, "")
	server := gittest.Serve(t, repo, gittest.HTTP{})
	refuse(t, source.Options{Repo: server.URL}, source.ErrEmptyRepository, "has no commit yet", "push")
	ssh := gittest.ServeSSH(t, repo, false, public)
	refuse(t, source.Options{Repo: ssh.URL, Auth: source.Auth{SSHKey: key, KnownHosts: ssh.KnownHosts}}, source.ErrEmptyRepository, "has no commit yet", "push")

	unborn := gittest.New(t, history)
	unborn.Git("symbolic-ref", "HEAD", "refs/heads/none")
	server = gittest.Serve(t, unborn, gittest.HTTP{})
	refuse(t, source.Options{Repo: server.URL}, source.ErrUnknownRevision, "the repository has ", "name a revision")
	if c := open(t, source.Options{Repo: server.URL, Revision: "main"}); c.Hash != third {
		t.Errorf("opened %s", c.Hash)
	}
}

func TestHTTPCredentials(t *testing.T) {
	tidy(t)
	const secret = "glpat-s3cr3t-value"
	repo := gittest.New(t, history)
	basic := gittest.Serve(t, repo, gittest.HTTP{Username: "ada", Password: secret})
	anyUser := gittest.Serve(t, repo, gittest.HTTP{Username: "x-access-token", Password: secret})
	bearer := gittest.Serve(t, repo, gittest.HTTP{Token: secret})
	withUser := func(url, user string) string { return strings.Replace(url, "://", "://"+user+"@", 1) }
	for name, o := range map[string]source.Options{
		"username and password":        {Repo: basic.URL, Auth: source.Auth{Username: "ada", Password: secret}},
		"username and token":           {Repo: basic.URL, Auth: source.Auth{Username: "ada", Token: secret}},
		"in the URL":                   {Repo: withUser(basic.URL, "ada:"+secret)},
		"the URL fills in the user":    {Repo: withUser(basic.URL, "ada"), Auth: source.Auth{Password: secret}}, // S10.9
		"token alone":                  {Repo: anyUser.URL, Auth: source.Auth{Token: secret}},
		"token where bearer is wanted": {Repo: bearer.URL, Auth: source.Auth{Token: secret}},
	} {
		t.Run(name, func(t *testing.T) {
			o.Progress = func(text string) { noSecret(t, text, secret) }
			c := open(t, o)
			if c.Hash != third || strings.Contains(c.URL, "@") {
				t.Errorf("opened %s of %s", c.Hash, c.URL)
			}
		})
	}
	for _, server := range []*gittest.Server{basic, bearer} {
		refuse(t, source.Options{Repo: server.URL}, source.ErrAuthRequired, "none were given", "SLUICE_GIT_TOKEN")
		for _, o := range []source.Options{
			{Repo: server.URL, Auth: source.Auth{Token: secret + "x"}},
			{Repo: server.URL, Auth: source.Auth{Username: "ada", Password: secret + "x"}},
			{Repo: withUser(server.URL, "ada:"+secret+"x")},
			{Repo: withUser(server.URL, secret+"x")},
		} {
			before := server.Requests()
			e := refuse(t, o, source.ErrAuthFailed, "does not accept the credentials", "SLUICE_GIT_USERNAME")
			noSecret(t, fmt.Sprintf("%v %+v %v", e, e, e.Hint()), secret)
			if tries := server.Requests() - before; tries > 2 {
				t.Errorf("wrong credentials were tried %d times", tries)
			}
		}
	}
}

func noSecret(t *testing.T, text, secret string) {
	t.Helper()
	if strings.Contains(text, secret) {
		t.Errorf("%q shows a secret", text)
	}
}

// A server's own words can hold what it was sent.
func TestServersWordsAreScrubbed(t *testing.T) {
	const secret = "s3cr3t-value"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "remote: token %s lacks the scope\n", password)
	}))
	defer server.Close()
	e := refuse(t, source.Options{Repo: server.URL + "/o/r", Auth: source.Auth{Token: secret}}, source.ErrAuthFailed, `"token *** lacks the scope"`, "permission to read")
	noSecret(t, fmt.Sprintf("%+v", e), secret)
}

func TestBadURLs(t *testing.T) {
	const secret = "s3cr3t-value"
	for url, text := range map[string]string{
		"ftp://u:" + secret + "@example.org/r":      `has the scheme "ftp"`,
		"https://u:" + secret + "@example.org":      "lacks a usable host or a path",
		"https://u:" + secret + "%zz@example.org/r": "cannot be read",
		"https://u:" + secret + "@example.org:x/r":  "cannot be read",
		"git://example.org/r":                       `has the scheme "git"`,
		"u:" + secret + "@example.org/r":            "…@example.org/r lacks its scheme",
	} {
		e := refuse(t, source.Options{Repo: url}, source.ErrInvalidURL, text, "https://")
		noSecret(t, fmt.Sprintf("%+v", e), secret)
	}
	o := source.Options{Repo: "http://u:" + secret + "@example.org/r"} // S10.9
	noSecret(t, fmt.Sprintf("%+v", refuse(t, o, source.ErrInsecure, "credentials are not sent to http://example.org/r", "use https")), secret)
}

func TestCertificates(t *testing.T) {
	tidy(t)
	repo := gittest.New(t, history)
	server := gittest.Serve(t, repo, gittest.HTTP{TLS: true})
	refuse(t, source.Options{Repo: server.URL}, source.ErrCertificate, "cannot trust "+server.URL, "SLUICE_GIT_CA_FILE")
	refuse(t, source.Options{Repo: server.URL, Auth: source.Auth{CA: []byte("none")}}, source.ErrCertificate, "hold no certificate", "PEM")
	if server.Packs() > 0 {
		t.Error("objects were asked of a server that is not trusted")
	}
}

func TestWhatIsNoRepository(t *testing.T) {
	tidy(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/page/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>sign in</html>") })
	mux.HandleFunc("/teapot/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	mux.Handle("/moved/", http.RedirectHandler("/page/", http.StatusMovedPermanently))
	mux.HandleFunc("/garbage/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		fmt.Fprint(w, "001e# service=git-upload-pack\n0000001eERR project is being moved")
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	for path, want := range map[string]struct {
		kind       error
		text, hint string
	}{
		"/none/x":  {source.ErrRepositoryNotFound, "there is no repository at " + server.URL + "/none/x", "if the repository is private, set SLUICE_GIT_TOKEN"},
		"/page/x":  {source.ErrNotRepository, `not as a Git repository (content type "text/html")`, "git clone"},
		"/moved/x": {source.ErrNotRepository, "not as a Git repository", "git clone"},
		"/teapot/": {source.ErrServer, "418", ""},
		"/garbage": {source.ErrServer, `says "project is being moved"`, ""},
	} {
		refuse(t, source.Options{Repo: server.URL + path}, want.kind, want.text, want.hint)
	}
}

// A forge that moved a repository answers with a redirect.
func TestRedirect(t *testing.T) {
	repo := gittest.New(t, history)
	server := gittest.Serve(t, repo, gittest.HTTP{Username: "ada", Password: "secret", Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if rest, ok := strings.CutPrefix(r.URL.Path, "/old"); ok {
				http.Redirect(w, r, "/repo"+rest+"?"+r.URL.RawQuery, http.StatusMovedPermanently)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	o := source.Options{Repo: strings.TrimSuffix(server.URL, "/repo") + "/old", Auth: source.Auth{Username: "ada", Password: "secret"}}
	if c := open(t, o); c.Hash != third {
		t.Errorf("opened %s", c.Hash)
	}

	// Another host gets no credentials.
	var sent atomic.Value
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent.Store(r.Header.Get("Authorization"))
		http.NotFound(w, r)
	}))
	defer thief.Close()
	elsewhere := strings.Replace(thief.URL, "127.0.0.1", "localhost", 1)
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere+r.URL.String(), http.StatusFound)
	}))
	defer away.Close()
	o.Repo = away.URL + "/o/r"
	refuse(t, o, source.ErrRepositoryNotFound, "no repository", "check the URL")
	if got := sent.Load(); got != "" {
		t.Errorf("another host was sent %q", got)
	}

	// Encryption is not given up.
	down := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, server.URL+"/info/refs?"+r.URL.RawQuery, http.StatusFound)
	}))
	defer down.Close()
	tls := gittest.Serve(t, repo, gittest.HTTP{TLS: true})
	refuse(t, source.Options{Repo: down.URL + "/o/r", Auth: source.Auth{CA: tls.CA}}, source.ErrServer, "redirects from https to http", "use the URL")
}

// What passes is tried again, what stays is not.
func TestRetries(t *testing.T) {
	tidy(t)
	repo := gittest.New(t, history)
	for _, tt := range []struct {
		name  string
		fail  func(w http.ResponseWriter, r *http.Request)
		posts bool
	}{
		{"502", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, false},
		{"429 with Retry-After", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		}, true},
		{"cut off", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true},
		{"cut off in the pack", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
			fmt.Fprint(w, "0034shallow "+third+"00000008NAK\n0023\x02Enumerating objects: 3, done.\n")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var failures atomic.Int32
			server := gittest.Serve(t, repo, gittest.HTTP{Wrap: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if (r.Method == http.MethodPost) == tt.posts && failures.Add(1) == 1 {
						tt.fail(w, r)
						return
					}
					next.ServeHTTP(w, r)
				})
			}})
			var said []string
			c := open(t, source.Options{Repo: server.URL, Progress: func(text string) { said = append(said, text) }})
			if c.Hash != third {
				t.Errorf("opened %s", c.Hash)
			}
			if len(said) != 2 || said[1] != "fetching "+server.URL+" (attempt 2 of 4)" {
				t.Errorf("said %q", said)
			}
		})
	}
	t.Run("never", func(t *testing.T) {
		server := gittest.Serve(t, repo, gittest.HTTP{Wrap: func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "0")
				http.Error(w, "down for maintenance", http.StatusServiceUnavailable)
			})
		}})
		_, err := source.Open(t.Context(), source.Options{Repo: server.URL})
		var exhausted *retry.ExhaustedError
		if !errors.Is(err, source.ErrServer) || !errors.As(err, &exhausted) || !strings.Contains(err.Error(), `503 Service Unavailable: "down for maintenance" (after 4 attempts)`) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("much later", func(t *testing.T) {
		server := gittest.Serve(t, repo, gittest.HTTP{Wrap: func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "3600")
				w.WriteHeader(http.StatusTooManyRequests)
			})
		}})
		refuse(t, source.Options{Repo: server.URL}, source.ErrServer, "429", "try again in 1h0m0s")
	})
}

func TestUnreachable(t *testing.T) {
	tidy(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	refuse(t, source.Options{Repo: "https://" + address + "/o/r"}, source.ErrUnreachable, "cannot reach https://"+address+"/o/r: ", "check the network")
	refuse(t, source.Options{Repo: "ssh://" + address + "/o/r", Auth: source.Auth{KnownHosts: knownHosts(t)}}, source.ErrUnreachable, "connection refused", "check the network")
	// RFC 6761: no name below "invalid" exists.
	refuse(t, source.Options{Repo: "https://nowhere.invalid/o/r"}, source.ErrUnreachable, "nowhere.invalid", "check")
}

func knownHosts(t *testing.T) []byte {
	return gittest.ServeSSH(t, gittest.New(t, history), false).KnownHosts
}

func TestSSHKeys(t *testing.T) {
	tidy(t)
	repo := gittest.New(t, history)
	key, public := gittest.NewKey(t, "")
	encrypted, public2 := gittest.NewKey(t, "open sesame")
	wrong, _ := gittest.NewKey(t, "")
	server := gittest.ServeSSH(t, repo, false, public, public2)
	auth := source.Auth{SSHKey: key, KnownHosts: server.KnownHosts}
	for name, change := range map[string]func(*source.Options){
		"key":               func(*source.Options) {},
		"encrypted key":     func(o *source.Options) { o.Auth.SSHKey, o.Auth.Passphrase = encrypted, "open sesame" },
		"user defaults":     func(o *source.Options) { o.Repo = strings.Replace(o.Repo, "git@", "", 1) }, // S10.10
		"unused passphrase": func(o *source.Options) { o.Auth.Passphrase = "open sesame" },
	} {
		t.Run(name, func(t *testing.T) {
			o := source.Options{Repo: server.URL, Auth: auth}
			change(&o)
			c := open(t, o)
			if c.Revision != "main@sha1:"+third || !strings.HasPrefix(c.URL, "https://127.0.0.1/repo") {
				t.Errorf("opened %s of %s", c.Revision, c.URL)
			}
		})
	}
	for name, tt := range map[string]struct {
		change     func(*source.Options)
		kind       error
		text, hint string
	}{
		"no key":       {func(o *source.Options) { o.Auth.SSHKey = nil }, source.ErrAuthRequired, "none was given", "SLUICE_SSH_KEY_FILE"},
		"wrong key":    {func(o *source.Options) { o.Auth.SSHKey = wrong }, source.ErrAuthFailed, "does not accept the SSH key", "deploy key"},
		"garbage":      {func(o *source.Options) { o.Auth.SSHKey = []byte("s3cr3t") }, source.ErrAuthFailed, "cannot be read", "PEM"},
		"locked":       {func(o *source.Options) { o.Auth.SSHKey = encrypted }, source.ErrAuthRequired, "is encrypted", "SLUICE_SSH_KEY_PASSPHRASE"},
		"badly locked": {func(o *source.Options) { o.Auth.SSHKey, o.Auth.Passphrase = encrypted, "s3cr3t" }, source.ErrAuthFailed, "does not open", "SLUICE_SSH_KEY_PASSPHRASE"},
		"no agent":     {func(o *source.Options) { o.Auth.SSHKey, o.Auth.SSHAgent = nil, "/none" }, source.ErrAuthFailed, "SSH agent", "SLUICE_SSH_KEY_FILE"},
		"no hosts":     {func(o *source.Options) { o.Auth.KnownHosts = nil }, source.ErrHostKey, "no known hosts were given", "ssh-keyscan -p "},
		"other hosts": {func(o *source.Options) {
			o.Auth.KnownHosts = []byte("example.org " + strings.SplitN(string(server.KnownHosts), " ", 2)[1])
		},
			source.ErrHostKey, "is not in the known hosts (its key is ssh-ed25519 SHA256:", "ssh-keyscan -p "},
		"bad hosts": {func(o *source.Options) { o.Auth.KnownHosts = []byte("example.org nonsense") }, source.ErrHostKey, "cannot be read: ", "ssh-keyscan"},
		"other key": {func(o *source.Options) {
			other := strings.Fields(string(knownHosts(t)))
			o.Auth.KnownHosts = []byte(strings.Fields(string(server.KnownHosts))[0] + " " + other[1] + " " + other[2] + "\n")
		}, source.ErrHostKey, "is not the one in the known hosts", "replace its line"},
		"not found": {func(o *source.Options) { o.Repo += "x" }, source.ErrRepositoryNotFound, "Repository not found", "check the URL"},
	} {
		t.Run(name, func(t *testing.T) {
			o := source.Options{Repo: server.URL, Auth: auth}
			tt.change(&o)
			noSecret(t, fmt.Sprintf("%+v", refuse(t, o, tt.kind, tt.text, tt.hint)), "s3cr3t")
		})
	}
}

// A server that accepts and says nothing must not outlast the context.
func TestCancelEndsAHangingServer(t *testing.T) {
	tidy(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan struct{}, 16)
	var conns sync.Map
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Store(conn, true) // else collected, and so closed
			accepted <- struct{}{}
		}
	}()
	repo := gittest.New(t, history)
	slow := gittest.Serve(t, repo, gittest.HTTP{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost {
				next.ServeHTTP(w, r)
				return
			}
			fmt.Fprint(w, "0034shallow "+third+"0000")
			w.(http.Flusher).Flush()
			accepted <- struct{}{}
			<-r.Context().Done()
		})
	}})
	key, _ := gittest.NewKey(t, "")
	stop := errors.New("interrupted by SIGTERM")
	for name, o := range map[string]source.Options{
		"http":         {Repo: "http://" + listener.Addr().String() + "/o/r"},
		"https":        {Repo: "https://" + listener.Addr().String() + "/o/r"},
		"ssh":          {Repo: "ssh://" + listener.Addr().String() + "/o/r", Auth: source.Auth{SSHKey: key, KnownHosts: knownHosts(t)}},
		"http, a pack": {Repo: slow.URL},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			var at time.Time
			go func() {
				<-accepted
				at = time.Now()
				cancel(stop)
			}()
			_, err := source.Open(ctx, o)
			if took := time.Since(at); took > 2*time.Second { // milliseconds, on a machine with time
				t.Errorf("ended %v after the cancel", took)
			}
			if !errors.Is(err, stop) {
				t.Errorf("error %v, want the cause", err)
			}
		})
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := source.Open(ctx, source.Options{Repo: repo.Dir}); err != stop {
		t.Errorf("cancelled before it began: %v", err)
	}
}

func TestReadingAfterClose(t *testing.T) {
	repo := gittest.New(t, history)
	server := gittest.Serve(t, repo, gittest.HTTP{})
	c, err := source.Open(t.Context(), source.Options{Repo: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := fs.ReadFile(c.FS, "run.sh"); err == nil {
		t.Error("read a file of a closed commit")
	}
}

// Without a key the agent is asked.
func TestSSHAgent(t *testing.T) {
	repo := gittest.New(t, history)
	key, public := gittest.NewKey(t, "")
	server := gittest.ServeSSH(t, repo, false, public)
	raw, err := ssh.ParseRawPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keys := agent.NewKeyring()
	if err := keys.Add(agent.AddedKey{PrivateKey: raw}); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "agent")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = agent.ServeAgent(keys, conn) // io.EOF when the client is done
			}()
		}
	}()
	o := source.Options{Repo: server.URL, Auth: source.Auth{SSHAgent: socket, KnownHosts: server.KnownHosts}}
	if c := open(t, o); c.Hash != third {
		t.Errorf("opened %s", c.Hash)
	}
	if err := keys.RemoveAll(); err != nil {
		t.Fatal(err)
	}
	refuse(t, o, source.ErrAuthFailed, "does not accept", "deploy key")
}
