//go:build unix

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/sluicerun/sluice/internal/kubetest"
)

// cached is sluice with a cache of builds, which is empty at the first install
// and then has what the situation before left there.
type cached struct{ sluice }

func (cached) name() string { return "sluice-cache" }

// counting is inside, though it counts nothing: what it sends is what sluice
// sends.
func (cached) counting() counting { return inside }

// fits is true where building is a part of the work that can be seen.
func (cached) fits(shape string) bool { return shape == "wide" || shape == "big" }

func (c cached) deploy(ctx context.Context, h *history, st state, k *kubetest.Cluster, p *counter) (spent, error) {
	folder := filepath.Join(c.dir, "builds")
	if st.situation == install {
		if err := os.RemoveAll(folder); err != nil {
			return spent{}, err
		}
	}
	with := c.sluice
	with.args = append(slices.Clone(c.args), "--cache-dir", folder)
	got, err := with.deploy(ctx, h, st, k, p)
	if err != nil {
		return got, err
	}
	// A cache that cannot be used fails no run, and would be measured as one.
	if _, err := os.Stat(filepath.Join(folder, "builds")); err != nil {
		return got, errors.Join(errors.New("nothing was kept in the cache of builds"), err)
	}
	return got, nil
}
