package flux

import (
	"errors"
	"fmt"
	"testing"
)

func TestProblem(t *testing.T) {
	web := ID{Namespace: "flux-system", Name: "web"}
	wrong := errors.New("is wrong")
	for name, tc := range map[string]struct {
		problem    Problem
		want, text string
	}{
		"all": {Problem{Kustomization: web, File: "a.yaml", Line: 3, Object: "Service/x/y", Field: "spec.ports", Err: wrong},
			"flux-system/web: a.yaml:3: Service/x/y: spec.ports: is wrong", "Service/x/y: spec.ports: is wrong"},
		"no line":  {Problem{Kustomization: web, File: "a.yaml", Err: wrong}, "flux-system/web: a.yaml: is wrong", "is wrong"},
		"no place": {Problem{Kustomization: web, Err: wrong}, "flux-system/web: is wrong", "is wrong"},
		"itself": {Problem{Kustomization: web, File: "k.yaml", Line: 1, Object: "Kustomization/flux-system/web", Field: "spec.path", Err: wrong},
			"k.yaml:1: Kustomization/flux-system/web: spec.path: is wrong", "Kustomization/flux-system/web: spec.path: is wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.problem.Error(); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if got := tc.problem.Text(); got != tc.text {
				t.Errorf("text %q, want %q", got, tc.text)
			}
			if !errors.Is(&tc.problem, wrong) {
				t.Error("the cause is lost")
			}
		})
	}
}

func TestJoinProblems(t *testing.T) {
	problem := func(file string, line int, text string) *Problem {
		return &Problem{File: file, Line: line, Err: errors.New(text)}
	}
	err := JoinProblems([]*Problem{problem("b", 1, "x"), problem("a", 9, "x"), problem("a", 2, "y"), problem("a", 2, "x"), problem("b", 1, "x")})
	if got, want := err.Error(), "a:2: x\na:2: y\na:9: x\nb:1: x"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := len(Problems(fmt.Errorf("wrapped: %w", errors.Join(err, err)))); got != 1 {
		// errors.As finds the first below a plain wrapper; only joined errors are taken apart.
		t.Errorf("%d problems below a wrapper", got)
	}
	if got := len(Problems(errors.Join(err, errors.New("other")))); got != 4 {
		t.Errorf("%d problems, want 4", got)
	}
	if JoinProblems(nil) != nil {
		t.Error("no problem is no error")
	}
}
