package run

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/sluicerun/sluice/internal/flux"
)

const kubeconfig = `
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: very-secret-token}}]
`

// S4.42: the key that the spec names, else "value", else "value.yaml".
func TestS4_42KeysOfASecret(t *testing.T) {
	for _, tc := range []struct {
		name string
		key  string
		data map[string]string
		want string // the content, or
		fail string // what is wrong
	}{
		{name: "value", data: map[string]string{"value": "a", "value.yaml": "b"}, want: "a"},
		{name: "value.yaml", data: map[string]string{"value.yaml": "b", "other": "c"}, want: "b"},
		{name: "named", key: "other", data: map[string]string{"value": "a", "other": "c"}, want: "c"},
		{name: "named and missing", key: "nope", data: map[string]string{"value": "a"}, fail: `Secret/apps/east has no key "nope" with a kubeconfig`},
		{name: "none", data: map[string]string{"kubeconfig": "a"}, fail: `Secret/apps/east has no key "value" or "value.yaml" with a kubeconfig`},
		{name: "empty", fail: `has no key "value" or "value.yaml"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRun(Options{}, Sinks{Learn: func(...string) {}})
			remote, err := r.remoteOf(flux.ClusterRef{Kind: "Secret", Namespace: "apps", Name: "east", Key: tc.key}, tc.data)
			if tc.fail != "" {
				var e *homeError
				if !errors.As(err, &e) || !strings.Contains(err.Error(), tc.fail) || e.Hint() == "" || homeReasons[e.problem] != "KubeConfigInvalid" {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || string(remote.Kubeconfig) != tc.want {
				t.Errorf("%q, %v", remote.Kubeconfig, err)
			}
		})
	}
}

// S4.43: the keys of a ConfigMap. The providers of clouds are refused.
func TestS4_43KeysOfAConfigMap(t *testing.T) {
	with := func(pairs ...string) map[string]string {
		data := map[string]string{"provider": "generic", "address": "https://east:6443", "serviceAccountName": "deployer"}
		for i := 0; i < len(pairs); i += 2 {
			data[pairs[i]] = pairs[i+1]
		}
		return data
	}
	for _, tc := range []struct {
		name    string
		data    map[string]string
		account string // --default-kubeconfig-service-account
		reason  string
		text    string
	}{
		{name: "whole", data: with("ca.crt", "PEM", "audiences", "a\nb\n")},
		{name: "no provider", data: with("provider", ""), reason: "KubeConfigInvalid", text: `has no key "provider"`},
		{name: "aws", data: with("provider", "aws"), reason: "UnsupportedProvider", text: `"aws": sluice brings no libraries of clouds`},
		{name: "azure", data: with("provider", "azure"), reason: "UnsupportedProvider", text: `"azure"`},
		{name: "gcp", data: with("provider", "gcp"), reason: "UnsupportedProvider", text: `"gcp"`},
		{name: "unknown", data: with("provider", "oci"), reason: "KubeConfigInvalid", text: `"oci", which there is not`},
		{name: "no address", data: with("address", " "), reason: "KubeConfigInvalid", text: `has no key "address"`},
		{name: "no account", data: with("serviceAccountName", ""), reason: "KubeConfigInvalid", text: `has no key "serviceAccountName"`},
		{name: "default account", data: with("serviceAccountName", ""), account: "deployer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRun(Options{DefaultKubeConfigServiceAccount: tc.account}, Sinks{})
			remote, err := r.remoteOf(flux.ClusterRef{Kind: "ConfigMap", Namespace: "apps", Name: "east"}, tc.data)
			if tc.reason == "" {
				if err != nil || remote.Address != "https://east:6443" || string(remote.CA) != tc.data["ca.crt"] || remote.Token == nil {
					t.Errorf("%+v, %v", remote, err)
				}
				return
			}
			var e *homeError
			if !errors.As(err, &e) || homeReasons[e.problem] != tc.reason || !strings.Contains(err.Error(), tc.text) || e.Hint() == "" {
				t.Errorf("%v, want %s: %s", err, tc.reason, tc.text)
			}
		})
	}
}

// The credentials of a kubeconfig are known before anything could be said of it.
func TestKubeConfigIsLearned(t *testing.T) {
	var learned []string
	r := newRun(Options{}, Sinks{Learn: func(values ...string) { learned = append(learned, values...) }})
	ref := flux.ClusterRef{Kind: "Secret", Namespace: "apps", Name: "east"}
	if _, err := r.remoteOf(ref, map[string]string{"value": kubeconfig}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(learned, []string{"very-secret-token"}) {
		t.Errorf("%q", learned)
	}
}

// Variables and kubeconfigs come from the run's own cluster (S3.5, S4.42): what a
// Kustomization applies to another one serves nobody.
func TestObjectsOfOtherClustersServeNobody(t *testing.T) {
	config := configMap("vars")
	here := &node{Kustomization: &flux.Kustomization{ID: flux.ID{Namespace: "apps", Name: "here"}}}
	there := &node{Kustomization: &flux.Kustomization{ID: flux.ID{Namespace: "apps", Name: "there"}}}
	there.Spec.KubeConfig = &meta.KubeConfigReference{SecretRef: &meta.SecretKeyReference{Name: "east"}}
	r := newRun(Options{}, Sinks{})
	r.index(there, []flux.Object{config})
	if len(r.provided) != 0 {
		t.Errorf("%v", r.provided)
	}
	r.index(here, []flux.Object{config})
	if len(r.provided) != 1 {
		t.Errorf("%v", r.provided)
	}
	// A run needs the Secret, a command that asks no cluster does not.
	if needs := r.looksFor(there); len(needs) != 1 || needs[0].String() != "Secret/apps/east" {
		t.Errorf("%v", needs)
	}
	there.excluded = true
	if needs := r.looksFor(there); len(needs) != 0 {
		t.Errorf("%v", needs)
	}
	there.excluded = false
	r.options.Command = CommandBuild
	if needs := r.looksFor(there); len(needs) != 0 {
		t.Errorf("%v", needs)
	}
}

// One name in two clusters is two objects; one cluster by two names has one.
func TestSharedIsPerCluster(t *testing.T) {
	holder := func(name, secret string) *node {
		n := &node{Kustomization: &flux.Kustomization{ID: flux.ID{Namespace: "apps", Name: name}}, built: true}
		o := configMap("same")
		o.SetAnnotations(map[string]string{"of": name})
		n.objects = []flux.Object{o}
		if secret != "" {
			n.Spec.KubeConfig = &meta.KubeConfigReference{SecretRef: &meta.SecretKeyReference{Name: secret}}
		}
		return n
	}
	r := newRun(Options{}, Sinks{Events: &recorder{}})
	for _, n := range []*node{holder("a", ""), holder("b", "east"), holder("c", "west")} {
		r.nodes.add(n)
	}
	if failures := r.shared(); len(failures) != 0 {
		t.Errorf("%+v", failures)
	}
	// Both Secrets turn out to lead to one cluster.
	east := &home{place: r.nodes.get(flux.ID{Namespace: "apps", Name: "b"}).Cluster()}
	r.homes.set(east.place, east)
	r.homes.set(r.nodes.get(flux.ID{Namespace: "apps", Name: "c"}).Cluster(), &home{place: east.place})
	failures := r.shared()
	if len(failures) != 1 || failures[0].Reason != "SharedObject" || !strings.Contains(failures[0].Text, "of apps/b and of apps/c") {
		t.Errorf("%+v", failures)
	}
}
