package cluster_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/kubetest"
)

// issuer is the audience that the test cluster's API server accepts.
const issuer = "https://kubernetes.default.svc.cluster.local"

// content is the administrator's kubeconfig, changed.
func content(t *testing.T, change func(c *clientcmdapi.Cluster, u *clientcmdapi.AuthInfo)) []byte {
	t.Helper()
	config, err := clientcmd.LoadFromFile(kubetest.Shared(t).Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range config.Clusters {
		for _, u := range config.AuthInfos {
			if change != nil {
				change(c, u)
			}
		}
	}
	data, err := clientcmd.Write(*config)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// plugin is a command that gives a kubeconfig's user a client certificate.
func plugin(t *testing.T) *clientcmdapi.ExecConfig {
	t.Helper()
	config, err := clientcmd.LoadFromFile(kubetest.Shared(t).Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	line := func(pem []byte) string { return strings.ReplaceAll(string(pem), "\n", `\n`) }
	var answer string
	for _, u := range config.AuthInfos {
		answer = `{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"clientCertificateData":"` +
			line(u.ClientCertificateData) + `","clientKeyData":"` + line(u.ClientKeyData) + `"}}`
	}
	script := filepath.Join(t.TempDir(), "login")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ncat <<'END'\n"+answer+"\nEND\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return &clientcmdapi.ExecConfig{APIVersion: "client.authentication.k8s.io/v1", Command: script, InteractiveMode: clientcmdapi.NeverExecInteractiveMode}
}

// S4.42: what of a kubeconfig is followed, what only if it is allowed, and what is
// refused.
func TestS4_42Kubeconfig(t *testing.T) {
	exec := plugin(t)
	byCommand := func(_ *clientcmdapi.Cluster, u *clientcmdapi.AuthInfo) {
		*u = clientcmdapi.AuthInfo{Exec: exec}
	}
	insecure := func(c *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) {
		c.CertificateAuthorityData, c.InsecureSkipTLSVerify = nil, true
	}
	for _, tc := range []struct {
		name    string
		remote  cluster.Remote
		user    string // who the server sees, or
		problem cluster.Problem
		text    string
		hint    string
	}{
		{name: "as it is", remote: cluster.Remote{Kubeconfig: content(t, nil)}, user: "kubetest-admin"},
		{name: "a command", remote: cluster.Remote{Kubeconfig: content(t, byCommand)}, problem: cluster.Unauthorized,
			hint: "--insecure-kubeconfig-exec"},
		{name: "a command, allowed", remote: cluster.Remote{Kubeconfig: content(t, byCommand), AllowExec: true}, user: "kubetest-admin"},
		{name: "a command beside a certificate", remote: cluster.Remote{Kubeconfig: content(t, func(_ *clientcmdapi.Cluster, u *clientcmdapi.AuthInfo) {
			u.Exec = &clientcmdapi.ExecConfig{APIVersion: exec.APIVersion, Command: "/does/not/exist", InteractiveMode: clientcmdapi.NeverExecInteractiveMode}
		})}, user: "kubetest-admin"},
		{name: "insecure", remote: cluster.Remote{Kubeconfig: content(t, insecure)}, problem: cluster.Unreachable,
			text: "do not trust the API server", hint: "--insecure-kubeconfig-tls"},
		{name: "insecure, allowed", remote: cluster.Remote{Kubeconfig: content(t, insecure), AllowInsecureTLS: true}, user: "kubetest-admin"},
		{name: "whom it impersonates is nobody's business", remote: cluster.Remote{Kubeconfig: content(t, func(_ *clientcmdapi.Cluster, u *clientcmdapi.AuthInfo) {
			u.Impersonate = "somebody"
		})}, user: "kubetest-admin"},
		{name: "a file of a token", remote: cluster.Remote{Kubeconfig: content(t, func(_ *clientcmdapi.Cluster, u *clientcmdapi.AuthInfo) {
			u.TokenFile = "/var/run/secrets/token"
		})}, problem: cluster.BadKubeconfig, text: "names a file in tokenFile", hint: "--flatten"},
		{name: "files of a certificate", remote: cluster.Remote{Kubeconfig: content(t, func(c *clientcmdapi.Cluster, u *clientcmdapi.AuthInfo) {
			*u = clientcmdapi.AuthInfo{ClientCertificate: "cert.pem", ClientKey: "key.pem"}
			c.CertificateAuthorityData, c.CertificateAuthority = nil, "ca.pem"
		})}, problem: cluster.BadKubeconfig, text: "names a file in certificate-authority"},
		{name: "no kubeconfig", remote: cluster.Remote{Kubeconfig: []byte("secret: [unclosed")}, problem: cluster.BadKubeconfig, text: "not a kubeconfig"},
		{name: "empty", remote: cluster.Remote{Kubeconfig: []byte{}}, problem: cluster.NoContext, text: "names no cluster"},
		{name: "another address", remote: cluster.Remote{Kubeconfig: content(t, func(c *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) {
			c.Server = "https://127.0.0.1:1"
		})}, problem: cluster.Unreachable, text: "cannot reach the API server https://127.0.0.1:1 (of Secret/apps/east)"},
		{name: "no URL", remote: cluster.Remote{Address: "http://127.0.0.1:1"}, problem: cluster.BadKubeconfig, text: `the address "http://127.0.0.1:1" in Secret/apps/east`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.remote.Origin = "Secret/apps/east"
			c, err := cluster.ConnectRemote(t.Context(), tc.remote)
			if tc.user != "" {
				if err != nil || c.User != tc.user {
					t.Fatalf("%+v, %v", c, err)
				}
				c.Close()
				return
			}
			var e *cluster.Error
			if !errors.As(err, &e) || e.Problem != tc.problem || !strings.Contains(err.Error(), tc.text) || !strings.Contains(e.Hint(), tc.hint) || e.Hint() == "" {
				t.Fatalf("%v\nwant %s: %s", err, tc.problem, tc.text)
			}
			if strings.Contains(err.Error(), "unclosed") || !strings.Contains(err.Error(), "Secret/apps/east") {
				t.Errorf("%v", err)
			}
		})
	}
}

// S4.43: a token of the run's own cluster for its audiences, renewed in time.
func TestS4_43Tokens(t *testing.T) {
	own := connect(t, cluster.Options{Kubeconfig: kubetest.Shared(t).Kubeconfig()})
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	admin := clientFor(t, own, "")
	for _, o := range []client.Object{
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "messenger"}},
		&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "messenger"},
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: "messenger"}}},
	} {
		if err := admin.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	asked := 0
	ends := time.Hour
	remote := cluster.Remote{Origin: "ConfigMap/apps/east", Address: strings.TrimPrefix(kubetest.Shared(t).Server(), "https://"),
		CA: ca(t, kubetest.Shared(t).Config()), Token: func(ctx context.Context) (string, time.Time, error) {
			asked++
			token, _, err := own.RequestToken(ctx, namespace, "messenger", []string{issuer})
			return token, time.Now().Add(ends), err
		}}
	c, err := cluster.ConnectRemote(t.Context(), remote)
	if err != nil {
		t.Fatal(err)
	}
	if want := "system:serviceaccount:" + namespace + ":messenger"; c.User != want {
		t.Errorf("user %q, want %q", c.User, want)
	}
	if err := clientFor(t, c, "").List(t.Context(), &corev1.ConfigMapList{}, client.InNamespace(namespace)); err != nil || asked != 1 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	// One that has ended is replaced.
	ends = -time.Second
	if c, err = cluster.ConnectRemote(t.Context(), remote); err != nil {
		t.Fatal(err)
	}
	before := asked
	if err := clientFor(t, c, "").List(t.Context(), &corev1.ConfigMapList{}, client.InNamespace(namespace)); err != nil || asked <= before {
		t.Errorf("%v, asked %d times, before %d", err, asked, before)
	}

	_, _, err = own.RequestToken(t.Context(), namespace, "nobody", []string{issuer})
	if err == nil || !strings.Contains(err.Error(), "ServiceAccount/"+namespace+"/nobody") {
		t.Errorf("%v", err)
	}
}

// Two connections to one cluster are told from those to two, also by users who
// may not look.
func TestSame(t *testing.T) {
	shared := kubetest.Shared(t)
	own := connect(t, cluster.Options{Kubeconfig: shared.Kubeconfig()})
	remote := func(data []byte) *cluster.Cluster {
		c, err := cluster.ConnectRemote(t.Context(), cluster.Remote{Origin: "Secret/apps/east", Kubeconfig: data})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	path, err := shared.KubeconfigFor("powerless")
	if err != nil {
		t.Fatal(err)
	}
	powerless, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other, err := kubetest.Start(t.Context(), kubetest.Options{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := other.Stop(); err != nil {
			t.Error(err)
		}
	}()
	elsewhere, err := os.ReadFile(other.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		with *cluster.Cluster
		want bool
	}{
		{"the same", remote(content(t, nil)), true},
		{"another user, who may not look", remote(powerless), true},
		{"another cluster", remote(elsewhere), false},
	} {
		for _, pair := range [][2]*cluster.Cluster{{own, tc.with}, {tc.with, own}} {
			if same, err := cluster.Same(t.Context(), pair[0], pair[1]); same != tc.want || err != nil {
				t.Errorf("%s: %t, %v", tc.name, same, err)
			}
		}
	}
}

// S4.42: the credentials that must not be shown are those inside of a kubeconfig.
func TestKubeconfigSecrets(t *testing.T) {
	data := content(t, func(_ *clientcmdapi.Cluster, u *clientcmdapi.AuthInfo) {
		u.Token, u.Password = "a-token", "a-password"
		u.Exec = &clientcmdapi.ExecConfig{APIVersion: "client.authentication.k8s.io/v1", Command: "login",
			Env: []clientcmdapi.ExecEnvVar{{Name: "PASSWORD", Value: "from-env"}}, InteractiveMode: clientcmdapi.NeverExecInteractiveMode}
	})
	secrets := strings.Join(cluster.KubeconfigSecrets(data), "\n")
	for _, want := range []string{"a-token", "a-password", "from-env", "PRIVATE KEY"} {
		if !strings.Contains(secrets, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if got := cluster.KubeconfigSecrets([]byte("{")); len(got) != 1 || got[0] != "{" {
		t.Errorf("%q", got)
	}
}
