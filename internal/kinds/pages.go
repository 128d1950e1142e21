package kinds

import (
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Pages reads a list page by page: page asks for at most limit objects from where the token says, and returns the token of
// the next page, empty after the last. An empty token means from the start, without anything that was read before; limit 0
// means all at once.
//
// When the server has forgotten the state that a list began with (410), the list is read again from the start, all at
// once, which cannot expire. So what was read is complete and of one moment, and no object is missed that was there all
// the time. Any other error is returned as it is.
func Pages(size int64, page func(limit int64, token string) (next string, err error)) error {
	limit, token := size, ""
	for {
		next, err := page(limit, token)
		switch {
		case err != nil && token != "" && limit > 0 && (apierrors.IsResourceExpired(err) || apierrors.IsGone(err)):
			limit, token = 0, ""
		case err != nil:
			return err
		case next == "":
			return nil
		default:
			token = next
		}
	}
}
