//go:build unix

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/sluicerun/sluice/internal/bench"
	"github.com/sluicerun/sluice/internal/kubetest"
)

// kubectl is the loop of a shell script: kubectl apply --server-side for each
// Kustomization, and kubectl rollout status where it is waited for. It gets
// finished manifests, one file for each Kustomization, and so builds nothing.
type kubectl struct {
	program string
	dir     string // for manifests, and as the home folder where it keeps what it discovers
	always  bool   // measure it in all situations
}

func (kubectl) name() string { return "kubectl" }

// counting is in passing because a loop takes minutes, and most of that is
// starting kubectl: what the proxy adds to each request is little beside it.
func (kubectl) counting() counting { return passing }

// meets leaves out situations in which the loop does what it did in the one
// before, for minutes.
func (k kubectl) meets(s situation) bool { return k.always || s == install || s == unchanged }

func (k kubectl) deploy(ctx context.Context, _ *history, s state, _ *kubetest.Cluster, p *counter) (spent, error) {
	files := map[string]string{}
	for _, step := range s.steps {
		for _, kustomization := range step {
			file, err := k.write(kustomization)
			if err != nil {
				return spent{}, err
			}
			files[kustomization.Name] = file
		}
	}
	began := time.Now()
	for _, step := range s.steps {
		for _, kustomization := range step {
			if err := k.run(ctx, p, "apply", "--server-side", "--force-conflicts", "-f", files[kustomization.Name]); err != nil {
				return spent{}, err
			}
		}
		for _, kustomization := range step {
			if d := kustomization.WaitsFor; d != nil {
				if err := k.run(ctx, p, "rollout", "status", "deployment/"+d.GetName(), "--namespace", d.GetNamespace(), "--timeout", "2m"); err != nil {
					return spent{}, err
				}
			}
		}
	}
	return spent{wall: time.Since(began)}, nil
}

func (k kubectl) write(kustomization bench.Kustomization) (string, error) {
	var content bytes.Buffer
	for _, o := range kustomization.Objects {
		data, err := o.MarshalJSON() // ends with a newline; a stream of JSON documents needs no more
		if err != nil {
			return "", err
		}
		content.Write(data)
	}
	file := filepath.Join(k.dir, kustomization.Name+".json")
	return file, os.WriteFile(file, content.Bytes(), 0o600)
}

func (k kubectl) run(ctx context.Context, p *counter, args ...string) error {
	cmd := exec.CommandContext(ctx, k.program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + k.dir, "TMPDIR=" + k.dir, "KUBECONFIG=" + p.kubeconfig}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %q: %w\n%s", args, err, tail(out))
	}
	return nil
}
