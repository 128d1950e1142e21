package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluicerun/sluice/internal/cli"
	"github.com/sluicerun/sluice/internal/gittest"
)

// twoEntries has two entry folders, so that a run which could read it says so and
// asks for --path, before it needs a cluster.
const twoEntries = `
-- clusters/production/apps.yaml --
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps, namespace: flux-system}
spec: {interval: 5m, prune: true, path: apps, sourceRef: {kind: GitRepository, name: flux-system}}
-- clusters/staging/apps.yaml --
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps, namespace: flux-system}
spec: {interval: 5m, prune: true, path: apps, sourceRef: {kind: GitRepository, name: flux-system}}
`

const read = "give --path one of: clusters/production, clusters/staging"

// run runs one command line in this process with the environment given.
func run(t *testing.T, env map[string]string, args ...string) (code int, out string) {
	t.Helper()
	var text bytes.Buffer
	code = cli.Main(t.Context(), append([]string{"sluice"}, args...), cli.System{
		Getenv: func(name string) string { return env[name] }, Stdout: &text, Stderr: &text,
	})
	return code, text.String()
}

func write(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A private repository is read with what the documented variables name, and a
// run without them says which they are.
func TestPrivateRepository(t *testing.T) {
	repo := gittest.New(t, twoEntries)
	const secret = "token-of-the-test"
	https := gittest.Serve(t, repo, gittest.HTTP{Token: secret, TLS: true})
	basic := gittest.Serve(t, repo, gittest.HTTP{Username: "me", Password: secret, TLS: true})
	key, public := gittest.NewKey(t, "")
	other, _ := gittest.NewKey(t, "")
	server := gittest.ServeSSH(t, repo, true, public)
	known := write(t, server.KnownHosts)

	for name, tc := range map[string]struct {
		url  string
		env  map[string]string
		want string
	}{
		"a token": {https.URL, map[string]string{"SLUICE_GIT_TOKEN": secret, "SLUICE_GIT_CA_FILE": write(t, https.CA)}, read},
		"user and password": {basic.URL, map[string]string{"SLUICE_GIT_USERNAME": "me", "SLUICE_GIT_PASSWORD": secret,
			"SLUICE_GIT_CA_FILE": write(t, basic.CA)}, read},
		"the job's own token": {basic.URL, map[string]string{"GITLAB_CI": "true", "CI_SERVER_HOST": strings.TrimPrefix(strings.Split(basic.URL, "/repo")[0], "https://"),
			"CI_JOB_TOKEN": secret, "SLUICE_GIT_USERNAME": "me", "SLUICE_GIT_CA_FILE": write(t, basic.CA)}, read},
		"no token":        {https.URL, map[string]string{"SLUICE_GIT_CA_FILE": write(t, https.CA)}, "SLUICE_GIT_TOKEN"},
		"a wrong token":   {https.URL, map[string]string{"SLUICE_GIT_TOKEN": "wrong", "SLUICE_GIT_CA_FILE": write(t, https.CA)}, "SLUICE_GIT_TOKEN"},
		"a stranger's CA": {https.URL, map[string]string{"SLUICE_GIT_TOKEN": secret}, "certificate"},
		"a key":           {server.URL, map[string]string{"SLUICE_SSH_KEY_FILE": write(t, key), "SLUICE_SSH_KNOWN_HOSTS_FILE": known}, read},
		"a wrong key":     {server.URL, map[string]string{"SLUICE_SSH_KEY_FILE": write(t, other), "SLUICE_SSH_KNOWN_HOSTS_FILE": known}, "SLUICE_SSH_KEY_FILE"},
		"an unknown host": {server.URL, map[string]string{"SLUICE_SSH_KEY_FILE": write(t, key)}, "SLUICE_SSH_KNOWN_HOSTS_FILE"},
		"file":            {repo.FileURL(), nil, read},
	} {
		t.Run(name, func(t *testing.T) {
			code, out := run(t, tc.env, "run", "--output", "text", "--repo", tc.url)
			if code != 3 || !strings.Contains(out, tc.want) {
				t.Errorf("code %d, want 3 and %q in:\n%s", code, tc.want, out)
			}
			if strings.Contains(out, secret) || strings.Contains(out, "PRIVATE KEY") {
				t.Errorf("a credential is shown:\n%s", out)
			}
		})
	}
}

// What is wrong with the command line is told on standard error, with code 64.
func TestWrongUsage(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"command":    {[]string{"frobnicate"}, `unknown command "frobnicate"`},
		"flag":       {[]string{"run", "--frobnicate"}, "-frobnicate"},
		"argument":   {[]string{"run", "clusters/production"}, `takes no arguments, got "clusters/production"`},
		"duration":   {[]string{"run", "--timeout", "soon"}, "such as 90s"},
		"number":     {[]string{"run", "--retries", "many"}, "whole number"},
		"wait":       {[]string{"run", "--wait", "long"}, "auto, spec, all, none"},
		"glob":       {[]string{"run", "--only", "["}, "is not a glob"},
		"var":        {[]string{"run", "--var", "tag"}, "NAME=VALUE"},
		"var name":   {[]string{"run", "--var", "my-tag=1"}, `"my-tag" is no name of a variable`},
		"vars file":  {[]string{"run", "--vars-file", "nowhere"}, "nowhere"},
		"source":     {[]string{"run", "--source", "x=y"}, "KIND/NAMESPACE/NAME=PATH"},
		"report":     {[]string{"run", "--report", "pdf=x"}, "gitlab-changes, json, junit, markdown"},
		"output":     {[]string{"run", "--output", "pdf"}, "auto, text, json, github or gitlab"},
		"percentage": {[]string{"run", "--max-prune", "120"}, "from 0 to 100"},
		"kind":       {[]string{"run", "--allow-delete", "Namespac"}, "PersistentVolumeClaim"},
		"version":    {[]string{"version", "please"}, "takes no arguments"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out := run(t, nil, tc.args...)
			if code != 64 || !strings.Contains(out, tc.want) || !strings.Contains(out, "hint: ") {
				t.Errorf("code %d, want 64 and %q in:\n%s", code, tc.want, out)
			}
		})
	}
}
