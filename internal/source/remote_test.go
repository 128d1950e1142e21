package source_test

import (
	"testing"

	"github.com/sluicerun/sluice/internal/gittest"
	"github.com/sluicerun/sluice/internal/source"
)

func TestOpenHTTP(t *testing.T) {
	repo := gittest.New(t, history)
	server := gittest.Serve(t, repo, gittest.HTTP{AnyCommit: true})
	for _, rev := range []string{"", "v1.1.0", first, first[:8], "feature/x", "main~1"} {
		c := open(t, source.Options{Repo: server.URL, Revision: rev, Progress: func(s string) { t.Log(s) }})
		t.Log(c.Revision, list(t, c.FS), server.Requests())
	}
	key, public := gittest.NewKey(t, "")
	ssh := gittest.ServeSSH(t, repo, true, public)
	for _, rev := range []string{"", "v1.1.0", first, first[:8], "feature/x", "main~1"} {
		c := open(t, source.Options{Repo: ssh.URL, Revision: rev, Auth: source.Auth{SSHKey: key, KnownHosts: ssh.KnownHosts}, Progress: func(s string) { t.Log(s) }})
		t.Log(c.Revision, list(t, c.FS), server.Requests())
	}
}
