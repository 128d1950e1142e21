package source

import (
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// What is tried in vain in tests need not take a forge's time.
func init() { networkPolicy.Base = 10 * time.Millisecond }

// HasObject reports whether an object is in the store that the commit was opened from.
func (c *Commit) HasObject(hash string) bool {
	_, err := c.objects.get(plumbing.AnyObject, plumbing.NewHash(hash))
	return err == nil
}
