package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// SearchPaths returns where kubectl looks for a kubeconfig when no file is
// named: the list in KUBECONFIG if it is set, else ~/.kube/config. getenv
// reads a variable; home may be empty.
func SearchPaths(getenv func(string) string, home string) []string {
	if list := getenv(clientcmd.RecommendedConfigPathEnvVar); list != "" {
		return filepath.SplitList(list)
	}
	if home == "" {
		return nil
	}
	return []string{filepath.Join(home, clientcmd.RecommendedHomeDir, clientcmd.RecommendedFileName)}
}

// restConfig chooses the configuration: the named kubeconfig, else those of
// the search path that exist, else the service account of the pod this runs
// in. It returns the name of the context, empty in a pod.
func restConfig(o Options) (*rest.Config, string, error) {
	paths := o.SearchPaths
	if o.Kubeconfig != "" {
		paths = []string{o.Kubeconfig}
	}
	var found, missing []string
	for _, path := range paths {
		if path == "" {
			continue
		}
		switch _, err := os.Stat(path); {
		case err == nil:
			found = append(found, path)
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, path)
		default:
			return nil, "", &Error{Problem: BadKubeconfig, text: "cannot read the kubeconfig", Err: err,
				hint: "make the file readable, or name another with --kubeconfig"}
		}
	}
	if len(found) == 0 {
		return withoutKubeconfig(o, missing)
	}

	raw, err := (&clientcmd.ClientConfigLoadingRules{Precedence: found}).Load()
	if err != nil {
		return nil, "", &Error{Problem: BadKubeconfig, text: fmt.Sprintf("kubeconfig %s cannot be used", quoteAll(found)), Err: err,
			hint: "the file must be a kubeconfig in YAML; `kubectl config view` shows what kubectl makes of it"}
	}
	name, err := chooseContext(raw, o.Context, found)
	if err != nil {
		return nil, "", err
	}
	config, err := clientcmd.NewNonInteractiveClientConfig(*raw, name, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
	if err != nil {
		return nil, "", &Error{Problem: BadKubeconfig, Context: name,
			text: fmt.Sprintf("context %q of kubeconfig %s cannot be used", name, quoteAll(found)), Err: err,
			hint: "check the cluster and the user that the context names"}
	}
	return config, name, nil
}

func withoutKubeconfig(o Options, missing []string) (*rest.Config, string, error) {
	looked := "nowhere to look: neither --kubeconfig nor KUBECONFIG is set, and there is no home folder"
	if len(missing) > 0 {
		looked = "looked at " + quoteAll(missing)
	}
	hint := "name one with --kubeconfig or the variable KUBECONFIG"
	if o.Kubeconfig != "" {
		return nil, "", &Error{Problem: NoKubeconfig, text: fmt.Sprintf("kubeconfig %q does not exist", o.Kubeconfig),
			hint: "check --kubeconfig; in CI, check that the step that writes the file ran before this one"}
	}
	config, err := rest.InClusterConfig()
	switch {
	case errors.Is(err, rest.ErrNotInCluster):
		return nil, "", &Error{Problem: NoKubeconfig, text: "no kubeconfig found (" + looked + "; and this is not a pod of a cluster)", hint: hint}
	case err != nil:
		return nil, "", &Error{Problem: NoKubeconfig, text: "no kubeconfig found (" + looked + "), and the pod's own service account cannot be used", Err: err,
			hint: hint + ", or mount the pod's service account token"}
	case o.Context != "":
		return nil, "", &Error{Problem: NoContext, text: fmt.Sprintf("context %q asked for, but no kubeconfig found (%s)", o.Context, looked),
			hint: hint + ", or leave --context out to use the pod's own service account"}
	}
	return config, "", nil
}

func chooseContext(raw *clientcmdapi.Config, asked string, files []string) (string, error) {
	names := slices.Sorted(maps.Keys(raw.Contexts))
	hint := "the kubeconfig has no context at all; is it the right file?"
	if len(names) > 0 {
		hint = "there are: " + quoteAll(names)
	}
	if asked != "" {
		if _, ok := raw.Contexts[asked]; !ok {
			return "", &Error{Problem: NoContext, Context: asked,
				text: fmt.Sprintf("context %q is not in kubeconfig %s", asked, quoteAll(files)), hint: hint}
		}
		return asked, nil
	}
	current := raw.CurrentContext
	if current == "" {
		if len(names) == 0 && len(raw.Clusters) == 0 {
			return "", &Error{Problem: NoContext, text: fmt.Sprintf("kubeconfig %s names no cluster and no context", quoteAll(files)), hint: hint}
		}
		// What the GitLab agent writes has contexts and no current one.
		if len(names) > 0 {
			hint = "choose one with --context; " + hint
		}
		return "", &Error{Problem: NoContext, text: fmt.Sprintf("kubeconfig %s has no current context", quoteAll(files)), hint: hint}
	}
	if _, ok := raw.Contexts[current]; !ok {
		return "", &Error{Problem: NoContext, Context: current,
			text: fmt.Sprintf("the current context %q is not in kubeconfig %s", current, quoteAll(files)), hint: hint}
	}
	return current, nil
}

func quoteAll(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(quoted, ", ")
}
