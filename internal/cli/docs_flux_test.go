package cli

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The facts S14.1 to S14.29 are about ways of writing that differ from Flux. Each
// has one row in docs/flux-differences.md, marked with its id, that says what
// sluice does and how to get the other way.
func TestDocsAnswerEveryWayOfWriting(t *testing.T) {
	const facts = 29
	mark := regexp.MustCompile(`<!-- (S14\.\d+) -->`)
	found := map[string]int{}
	for _, cells := range rows(page(t, "docs/flux-differences.md")) {
		m := mark.FindStringSubmatch(strings.Join(cells, " "))
		if m == nil {
			if !strings.HasPrefix(cells[0], "-") && cells[0] != "You wrote or read" {
				t.Errorf("a row without an id: %s", cells[0])
			}
			continue
		}
		found[m[1]]++
		if len(cells) != 3 || !strings.Contains(cells[0], m[0]) || cells[1] == "" || cells[2] == "" {
			t.Errorf("%s: the row does not say what is done and how to get the other way", m[1])
		}
	}
	for n := 1; n <= facts; n++ {
		if id := fmt.Sprintf("S14.%d", n); found[id] != 1 {
			t.Errorf("%s has %d rows in docs/flux-differences.md, want 1", id, found[id])
		}
	}
	if len(found) != facts {
		t.Errorf("docs/flux-differences.md has rows for %d facts, there are %d", len(found), facts)
	}
}

// What Flux's controller can be told (S13.1, S13.2).
var (
	controllerFlags = []string{"--concurrent", "--concurrent-ssa", "--requeue-dependency", "--http-retry", "--no-remote-bases",
		"--no-cross-namespace-refs", "--default-service-account", "--default-kubeconfig-service-account",
		"--default-decryption-service-account", "--sops-age-secret", "--sops-vault-configmap", "--override-manager",
		"--custom-apply-stage-kinds", "--interval-jitter-percentage", "--min-retry-delay", "--max-retry-delay",
		"--insecure-kubeconfig-exec", "--insecure-kubeconfig-tls", "--watch-all-namespaces", "--watch-label-selector",
		"--watch-configs-label-selector", "--token-cache-max-size", "--kube-api-qps", "--kube-api-burst"}
	controllerGates = []string{"StrictPostBuildSubstitutions", "DisableStatusPollerCache", "DisableFailFastBehavior",
		"AdditiveCELDependencyCheck", "ExternalArtifact", "CancelHealthCheckOnNewRevision", "ObjectLevelWorkloadIdentity",
		"MigrateAPIVersion", "CacheSecretsAndConfigMaps", "DisableConfigWatchers", "DirectSourceFetch", "GroupChangeLog"}
)

// S13.1 to S13.3: docs/flux-flags.md answers each flag and each gate, and the flags
// that it names as the answer exist.
func TestDocsAnswerEveryFlagOfFlux(t *testing.T) {
	own := map[string]bool{}
	for _, command := range commands() {
		for _, flag := range command.Flags {
			for _, name := range dashed(flag.Names()) {
				own[name] = true
			}
		}
	}
	var answered []string
	for _, cells := range rows(page(t, "docs/flux-flags.md")) {
		names := quotes(cells[0])
		if len(names) == 0 {
			continue
		}
		answered = append(answered, names...)
		if len(cells) != 3 || cells[1] == "" || cells[2] == "" {
			t.Errorf("%s has no answer", cells[0])
			continue
		}
		for _, q := range quotes(cells[2]) {
			if word := strings.Fields(q)[0]; strings.HasPrefix(word, "-") && !own[word] {
				t.Errorf("%s is answered by %s, which does not exist", cells[0], q)
			}
		}
		if text := cells[2]; !strings.HasPrefix(text, "`-") && !strings.HasPrefix(text, "none") {
			t.Errorf("%s: the answer begins neither with a flag nor with none", cells[0])
		}
	}
	if want := slices.Concat(controllerFlags, controllerGates); !slices.Equal(answered, want) {
		t.Errorf("docs/flux-flags.md answers\n%q\nwant\n%q", answered, want)
	}
}

// S13.3: the switches that a run should have are there, with Flux's defaults.
func TestSwitchesOfFlux(t *testing.T) {
	run := commands()["run"]
	for name, fallback := range map[string]string{
		"strict-substitution": "true", "no-remote-bases": "false", "no-cross-namespace-refs": "false", "default-service-account": "",
		"custom-apply-stage-kinds": "", "override-manager": "", "no-fail-fast": "false", "additive-cel-dependency-check": "false",
		"migrate-api-version": "false", "insecure-kubeconfig-exec": "false", "insecure-kubeconfig-tls": "false",
	} {
		found := false
		for _, flag := range run.Flags {
			if flag.Names()[0] == name {
				found = true
				if got := fallbackOf(t, flag); got != fallback {
					t.Errorf("--%s is %q by default, Flux's is %q", name, got, fallback)
				}
			}
		}
		if !found {
			t.Errorf("there is no flag --%s", name)
		}
	}
}
