//go:build unix

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
)

// The results in a page are between these lines. Everything else of the page
// is written by people.
const (
	resultsBegin = "<!-- results: written by make bench-docs -->\n"
	resultsEnd   = "<!-- end of results -->\n"
)

// mostBusy is how much of the machine other work may have taken for results
// that are published.
const mostBusy = 0.15

// publish writes the results of one or several files into a page.
func publish(page string, files []string) error {
	r, err := readReports(files)
	if err != nil {
		return err
	}
	if err := r.publishable(); err != nil {
		return err
	}
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	text, err := replaceResults(string(old), r.markdown())
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	return os.WriteFile(page, []byte(text), 0o644)
}

func replaceResults(page, results string) (string, error) {
	head, rest, ok := strings.Cut(page, resultsBegin)
	_, tail, ok2 := strings.Cut(rest, resultsEnd)
	if !ok || !ok2 {
		return "", fmt.Errorf("there is no place for results: it needs the lines %q and %q", strings.TrimSpace(resultsBegin), strings.TrimSpace(resultsEnd))
	}
	return head + resultsBegin + "\n" + results + "\n" + resultsEnd + tail, nil
}

// publishable refuses what would mislead readers.
func (r *Report) publishable() error {
	var errs []error
	if r.Scale != 1 {
		errs = append(errs, fmt.Errorf("measured at %g of full size: measure with --scale 1", r.Scale))
	}
	if r.Failed != "" {
		errs = append(errs, fmt.Errorf("the comparison ended early: %s", r.Failed))
	}
	if r.Machine.Busy > mostBusy {
		errs = append(errs, fmt.Errorf("other work took %.0f %% of the machine: measure again when it is idle", r.Machine.Busy*100))
	}
	return errors.Join(errs...)
}

// readReports reads one report, or several that were measured in parts: then
// everything but the shapes must be the same.
func readReports(files []string) (*Report, error) {
	var whole *Report
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		r := &Report{}
		if err := json.Unmarshal(data, r); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if whole == nil {
			whole = r
			continue
		}
		if err := whole.join(r); err != nil {
			return nil, fmt.Errorf("%s does not belong to %s: %w", file, files[0], err)
		}
	}
	if whole == nil {
		return nil, errors.New("no file with results is named")
	}
	return whole, nil
}

// join adds the shapes of another part.
func (r *Report) join(part *Report) error {
	same := func(r *Report) Report {
		bare := *r
		bare.Shapes, bare.Start, bare.Date, bare.Failed, bare.Missing, bare.Machine.Busy = nil, Start{}, "", "", nil, 0
		return bare
	}
	if !reflect.DeepEqual(same(r), same(part)) {
		return errors.New("another machine, other versions, another scale, other rounds or arguments")
	}
	for _, s := range part.Shapes {
		for _, have := range r.Shapes {
			if have.Name == s.Name {
				return fmt.Errorf("both have measured %q", s.Name)
			}
		}
		r.Shapes = append(r.Shapes, s)
	}
	r.Machine.Busy = max(r.Machine.Busy, part.Machine.Busy)
	r.Failed += part.Failed
	return nil
}
