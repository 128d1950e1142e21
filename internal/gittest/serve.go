package gittest

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// HTTP says how [Serve] serves. The zero value serves everybody, without TLS, as an unconfigured Git server does: a commit
// that no reference names cannot be asked for.
type HTTP struct {
	Username, Password string // asks for these by basic authentication
	Token              string // asks for this bearer token instead
	TLS                bool   // https with a certificate of [Server.CA]
	// AnyCommit lets clients ask for any commit by its hash, and leave out trees and files, as GitHub and GitLab do.
	AnyCommit bool
	// Wrap sees every request first: to count, delay or fail them.
	Wrap func(http.Handler) http.Handler
}

// Server is a running HTTP server of one repository.
type Server struct {
	// URL is the repository's, without credentials.
	URL string
	// CA is the PEM certificate that a client must trust; nil without TLS.
	CA []byte

	requests atomic.Int64
	packs    atomic.Int64
}

// Requests is how many requests arrived so far.
func (s *Server) Requests() int { return int(s.requests.Load()) }

// Packs is how many of them asked for objects.
func (s *Server) Packs() int { return int(s.packs.Load()) }

// Serve serves a repository by the smart HTTP protocol on a free local port, by git's own http-backend, until the test ends.
func Serve(t testing.TB, r *TestRepo, options HTTP) *Server {
	t.Helper()
	gitCommand, err := exec.LookPath("git")
	check(t, err)
	if options.AnyCommit {
		allowAnyCommit(r)
	}
	server := &Server{}
	backend := &cgi.Handler{
		Path:   gitCommand,
		Args:   []string{"http-backend"},
		Stderr: io.Discard, // what it says to a client is the client's to show
		Env:    append(Environment(), "GIT_PROJECT_ROOT="+filepath.Dir(r.Dir), "GIT_HTTP_EXPORT_ALL=1"),
	}
	var handler http.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		server.requests.Add(1)
		if req.Method == http.MethodPost {
			server.packs.Add(1)
		}
		if !options.allowed(req) {
			w.Header().Set("WWW-Authenticate", options.challenge())
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, req)
	})
	if options.Wrap != nil {
		handler = options.Wrap(handler)
	}
	ts := httptest.NewUnstartedServer(handler)
	ts.Config.ErrorLog = log.New(io.Discard, "", 0)
	if options.TLS {
		ts.StartTLS()
		server.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ts.Certificate().Raw})
	} else {
		ts.Start()
	}
	t.Cleanup(func() {
		ts.CloseClientConnections()
		ts.Close()
	})
	server.URL = ts.URL + "/" + filepath.Base(r.Dir)
	return server
}

func (o HTTP) challenge() string {
	if o.Token != "" {
		return "Bearer"
	}
	return `Basic realm="gittest"`
}

func (o HTTP) allowed(req *http.Request) bool {
	if o.Token != "" {
		return req.Header.Get("Authorization") == "Bearer "+o.Token
	}
	if o.Username == "" && o.Password == "" {
		return true
	}
	username, password, ok := req.BasicAuth()
	return ok && username == o.Username && password == o.Password
}

func allowAnyCommit(r *TestRepo) {
	r.t.Helper()
	r.Git("config", "uploadpack.allowAnySHA1InWant", "true")
	r.Git("config", "uploadpack.allowFilter", "true")
}
