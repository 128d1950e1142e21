package run

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/flux"
)

// Keys of the Secret (S4.42) and of the ConfigMap (S4.43) that spec.kubeConfig
// names.
const (
	valueKey     = "value"
	valueYAMLKey = "value.yaml"

	providerKey  = "provider"
	addressKey   = "address"
	authorityKey = "ca.crt"
	audiencesKey = "audiences"
	accountKey   = "serviceAccountName"
)

// remoteOf makes what to connect with of a Secret or ConfigMap. Its errors are of
// type *homeError.
func (r *run) remoteOf(ref flux.ClusterRef, data map[string]string) (cluster.Remote, error) {
	remote := cluster.Remote{
		Origin: ref.String(), AllowExec: r.options.InsecureKubeConfigExec, AllowInsecureTLS: r.options.InsecureKubeConfigTLS,
		UserAgent: r.options.Cluster.UserAgent, Warning: r.options.Cluster.Warning, Busy: r.busy("the API server of " + ref.String()), Done: r.atEnd,
		MayWrite: r.mayWrite,
	}
	if ref.Kind == "ConfigMap" {
		return r.byTokens(ref, data, remote)
	}
	key, content := kubeconfigIn(ref, data)
	if key == "" {
		wanted := fmt.Sprintf("%q", ref.Key)
		if ref.Key == "" {
			wanted = fmt.Sprintf("%q or %q", valueKey, valueYAMLKey)
		}
		return remote, &homeError{ref: ref, problem: malformed, text: fmt.Sprintf("%s has no key %s with a kubeconfig", ref.Object(), wanted),
			hint: "add the key, or name another with spec.kubeConfig.secretRef.key; it has " + list(slices.Sorted(maps.Keys(data)), 10)}
	}
	r.sinks.Learn(cluster.KubeconfigSecrets([]byte(content))...)
	remote.Kubeconfig = []byte(content)
	return remote, nil
}

// kubeconfigIn finds the kubeconfig in a Secret, and its key; an empty key if it
// is not there (S4.42).
func kubeconfigIn(ref flux.ClusterRef, data map[string]string) (key, content string) {
	keys := []string{valueKey, valueYAMLKey}
	if ref.Key != "" {
		keys = []string{ref.Key}
	}
	for _, key := range keys {
		if content, ok := data[key]; ok {
			return key, content
		}
	}
	return "", ""
}

// byTokens reaches a cluster that trusts tokens of the run's own: the provider
// "generic" of S4.43.
func (r *run) byTokens(ref flux.ClusterRef, data map[string]string, remote cluster.Remote) (cluster.Remote, error) {
	fail := func(problem homeProblem, text, hint string) (cluster.Remote, error) {
		return remote, &homeError{ref: ref, problem: problem, text: ref.Object() + " " + text, hint: hint}
	}
	switch provider := data[providerKey]; provider {
	case "generic":
	case "":
		return fail(malformed, fmt.Sprintf("has no key %q", providerKey), `set it to "generic", and give "address" and "serviceAccountName"`)
	case "aws", "azure", "gcp":
		return fail(unsupportedProvider, fmt.Sprintf("names the provider %q: sluice brings no libraries of clouds", provider),
			"put a kubeconfig into a Secret, in a step before sluice, and name it with spec.kubeConfig.secretRef (docs/remote-clusters.md)")
	default:
		return fail(malformed, fmt.Sprintf("names the provider %q, which there is not", provider), `"generic" is the one that sluice has`)
	}
	if strings.TrimSpace(data[addressKey]) == "" {
		return fail(malformed, fmt.Sprintf("has no key %q", addressKey), "set it to the address of the cluster's API server")
	}
	account := data[accountKey]
	if account == "" {
		account = r.options.DefaultKubeConfigServiceAccount
	}
	if account == "" {
		return fail(malformed, fmt.Sprintf("has no key %q, and a run has no account of its own as Flux's controller has", accountKey),
			"name a service account of the Kustomization's namespace in it, or with --default-kubeconfig-service-account")
	}
	var audiences []string
	for line := range strings.Lines(data[audiencesKey]) {
		if line = strings.TrimSpace(line); line != "" {
			audiences = append(audiences, line)
		}
	}
	if len(audiences) == 0 {
		audiences = []string{data[addressKey]}
	}
	own := r.homes.at(flux.ClusterRef{})
	remote.Address, remote.CA = data[addressKey], []byte(data[authorityKey])
	remote.Token = func(ctx context.Context) (string, time.Time, error) {
		token, ends, err := own.RequestToken(ctx, ref.Namespace, account, audiences)
		if err == nil {
			r.sinks.Learn(token)
		}
		return token, ends, err
	}
	return remote, nil
}
