package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/sluicerun/sluice/internal/planfile"
)

// planMode is the mode of a saved plan: it tells what is in the cluster.
const planMode = 0o600

// savePlan writes a plan to a file, if that is wanted and there is one. What an
// earlier plan has left there goes: it must not be taken for this one.
func savePlan(file string, p *planfile.File) error {
	if file == "" {
		return nil
	}
	if p == nil {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("--out: no plan was saved, but an earlier one is still there: %w", err)
		}
		return nil
	}
	text, err := p.Encode()
	if err == nil {
		err = writeFile(file, text, planMode)
	}
	if err != nil {
		return fmt.Errorf("--out %s: %w", file, err)
	}
	return nil
}

// readPlan reads a saved plan; nil if no file is given.
func readPlan(file string) (*planfile.File, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--plan: %w", err)
	}
	p, err := planfile.Decode(text)
	if form := (*planfile.FormError)(nil); errors.As(err, &form) {
		return nil, fmt.Errorf("--plan %s: the file %w; %s", file, form, form.Hint())
	}
	return p, err
}
