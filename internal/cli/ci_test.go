package cli

import (
	"testing"
	"time"
)

// A run in a job of GitLab CI ends a minute before the job does, whatever the job has
// used before it. CI_JOB_TIMEOUT is in seconds (GitLab 15.7), CI_JOB_STARTED_AT in
// UTC.
func TestJobLimit(t *testing.T) {
	now := time.Date(2026, 3, 2, 10, 30, 0, 0, time.UTC)
	for _, tc := range []struct {
		name, timeout, started string
		want                   time.Duration
	}{
		{"an hour, of which ten minutes are gone", "3600", "2026-03-02T10:20:00Z", 49 * time.Minute},
		{"its beginning is not known", "3600", "", 59 * time.Minute},
		{"its beginning is in the future: the clocks differ", "3600", "2026-03-02T10:31:00Z", 59 * time.Minute},
		{"it should be over: the clocks differ", "3600", "2026-03-02T09:00:00Z", 59 * time.Minute},
		{"two minutes are left: three quarters of it", "600", "2026-03-02T10:22:00Z", 90 * time.Second},
		{"a moment is left", "600", "2026-03-02T10:20:01Z", time.Second},
		{"with an offset", "3600", "2026-03-02T11:20:00+01:00", 49 * time.Minute},
		{"an older GitLab", "", "2026-03-02T10:20:00Z", 0},
		{"no number", "1h", "", 0},
		{"none", "0", "", 0},
	} {
		env := map[string]string{"GITLAB_CI": "true", "CI_JOB_TIMEOUT": tc.timeout, "CI_JOB_STARTED_AT": tc.started}
		if got := detect(func(name string) string { return env[name] }).jobLimit(now); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
		delete(env, "GITLAB_CI")
		env["GITHUB_ACTIONS"] = "true"
		if got := detect(func(name string) string { return env[name] }).jobLimit(now); got != 0 {
			t.Errorf("%s: %s outside of GitLab", tc.name, got)
		}
	}
}
