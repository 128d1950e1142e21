package run

import (
	"fmt"
	"time"

	"github.com/sluicerun/sluice/internal/build"
	"github.com/sluicerun/sluice/internal/cache"
	"github.com/sluicerun/sluice/internal/event"
)

// The cache only saves time: whatever is wrong with it is a notice, and the
// builds are made.

// rendering is how kustomize's part of a build came about.
type rendering struct {
	took   time.Duration // when it was made
	cached bool
}

// openCache opens the cache of builds, if one is wanted.
func (r *run) openCache() {
	dir := r.options.CacheDir
	if dir == "" {
		return
	}
	folder, err := cache.Open(dir, r.options.CacheLimit, r.began)
	if err != nil {
		r.cacheUnusable(dir, err)
		return
	}
	r.cache = folder
}

// building are the options of every build.
func (r *run) building() build.Options {
	o := build.Options{NoRemoteBases: r.options.NoRemoteBases, Program: r.options.Program}
	if r.cache != nil {
		o.Cache = r.cache
	}
	return o
}

// tidyCache makes room in the cache for the next run, and tells what it was good
// for.
func (r *run) tidyCache() {
	if r.cache == nil {
		return
	}
	r.cache.Tidy()
	r.tellCache()
	told := event.BuildsFinished{At: now()}
	for _, n := range r.sorted() {
		if n.rendering == nil {
			continue
		}
		told.Builds++
		if n.rendering.cached {
			told.Cached++
			told.Saved += n.rendering.took
		}
	}
	r.emit(told)
}

// tellCache tells what has gone wrong with the cache since the last time.
func (r *run) tellCache() {
	if r.cache == nil {
		return
	}
	for _, p := range r.cache.Problems() {
		if !p.Damaged {
			r.cacheUnusable(p.Path, p.Err)
			continue
		}
		r.notice(event.Notice{Level: event.Warning, Code: "cache-damaged",
			Text: fmt.Sprintf("%s is removed from the cache of builds, and what it stood for is built: %v", p.Path, p.Err),
			Hint: "nothing is to be done, unless it happens often; then see who writes to that folder, and how it is carried from job to job"})
	}
}

func (r *run) cacheUnusable(path string, err error) {
	r.notice(event.Notice{Level: event.Warning, Code: "cache-unusable",
		Text: fmt.Sprintf("the cache of builds cannot be used in full: %s: %v", path, err),
		Hint: "give --cache-dir a folder that this job may read and write, on a disk with room; the run goes on without"})
}
