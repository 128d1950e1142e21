package cli

import (
	"flag"
	"reflect"
	"slices"
	"testing"

	"github.com/urfave/cli/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/run"
)

// parsed are the options that a command line of run gives.
func parsed(t *testing.T, args ...string) run.Options {
	t.Helper()
	set := flag.NewFlagSet("run", flag.ContinueOnError)
	for _, f := range slices.Concat(repoFlags(), runFlags()) {
		if err := f.Apply(set); err != nil {
			t.Fatal(err)
		}
	}
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	app := newApp(System{}, new(int))
	o, err := parseRun(cli.NewContext(app, set, nil), System{Getenv: func(string) string { return "" }}, place{})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// S13.1, S13.2: the flags of the controller that decide how objects are applied
// have namesakes; as there, none of them is on by itself.
func TestS13_1ApplyFlags(t *testing.T) {
	o := parsed(t)
	if o.DefaultServiceAccount != "" || len(o.OverrideManagers) > 0 || len(o.CustomStageKinds) > 0 || o.MigrateAPIVersion {
		t.Errorf("by default %q, %q, %v, %t", o.DefaultServiceAccount, o.OverrideManagers, o.CustomStageKinds, o.MigrateAPIVersion)
	}
	o = parsed(t, "--default-service-account", "deployer", "--override-manager", "helm", "--override-manager", "argocd",
		"--custom-apply-stage-kinds", "rbac.authorization.k8s.io/Role,ConfigMap", "--custom-apply-stage-kinds", "example.com/Gadget", "--migrate-api-version")
	kinds := map[schema.GroupKind]struct{}{{Group: "rbac.authorization.k8s.io", Kind: "Role"}: {}, {Kind: "ConfigMap"}: {}, {Group: "example.com", Kind: "Gadget"}: {}}
	if o.DefaultServiceAccount != "deployer" || !slices.Equal(o.OverrideManagers, []string{"helm", "argocd"}) || !reflect.DeepEqual(o.CustomStageKinds, kinds) || !o.MigrateAPIVersion {
		t.Errorf("given %q, %q, %v, %t", o.DefaultServiceAccount, o.OverrideManagers, o.CustomStageKinds, o.MigrateAPIVersion)
	}
}
