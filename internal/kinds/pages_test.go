package kinds_test

import (
	"errors"
	"slices"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sluicerun/sluice/internal/kinds"
)

func TestPages(t *testing.T) {
	expired := apierrors.NewResourceExpired("the provided continue parameter is too old")
	other := errors.New("the server is not well")
	for _, tt := range []struct {
		name string
		// fail is what the server answers to the n-th request.
		fail map[int]error
		want []string
		err  error
	}{
		{"one after the other", nil, []string{"a", "b", "c", "d", "e"}, nil},
		{"the second page has expired", map[int]error{2: expired}, []string{"a", "b", "c", "d", "e"}, nil},
		{"the last page has expired", map[int]error{3: expired}, []string{"a", "b", "c", "d", "e"}, nil},
		{"the first cannot have", map[int]error{1: expired}, nil, expired},
		{"nor can all at once", map[int]error{2: expired, 3: expired}, []string{"a", "b"}, expired},
		{"another error", map[int]error{2: other}, []string{"a", "b"}, other},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := []string{"a", "b", "c", "d", "e"}
			var got []string
			requests := 0
			err := kinds.Pages(2, func(limit int64, token string) (string, error) {
				if requests++; tt.fail[requests] != nil {
					return "", tt.fail[requests]
				}
				first := 0
				if token == "" {
					got = nil
				} else {
					first = slices.Index(all, token)
				}
				last := len(all)
				if limit > 0 {
					last = min(last, first+int(limit))
				}
				got = append(got, all[first:last]...)
				if last == len(all) {
					return "", nil
				}
				return all[last], nil
			})
			if !slices.Equal(got, tt.want) || !errors.Is(err, tt.err) {
				t.Errorf("%v and %v, want %v and %v", got, err, tt.want, tt.err)
			}
		})
	}
}
