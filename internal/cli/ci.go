package cli

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluicerun/sluice/internal/source"
)

// place is where the process runs, as far as the environment tells.
type place struct {
	// system is "github", "gitlab", or "" for a shell.
	system string
	// runURL and actor say who started the job.
	runURL, actor string
	// commit, branch and repoURL are what the job is for.
	commit, branch, repoURL string
	// host and token are the forge that the job belongs to and its own
	// credentials there; user is the name that goes with the token.
	host, user, token string
	// jobTimeout is the job's own limit, counted from jobStarted; zero where it
	// is not known. GitHub tells no job its timeout-minutes.
	jobTimeout time.Duration
	jobStarted time.Time
}

// detect reads the variables that GitHub Actions and GitLab CI set for every
// job (their documentation: "Variables reference", "Predefined CI/CD
// variables").
func detect(getenv func(string) string) place {
	switch {
	case getenv("GITHUB_ACTIONS") == "true":
		p := place{system: "github", actor: getenv("GITHUB_ACTOR"), commit: getenv("GITHUB_SHA"), token: getenv("GITHUB_TOKEN"), user: "x-access-token"}
		if server, repo := getenv("GITHUB_SERVER_URL"), getenv("GITHUB_REPOSITORY"); server != "" && repo != "" {
			p.host, p.repoURL = host(server), server+"/"+repo
			if id := getenv("GITHUB_RUN_ID"); id != "" {
				p.runURL = p.repoURL + "/actions/runs/" + id
			}
		}
		// A pull request's ref is refs/pull/N/merge; its branch has a
		// variable of its own.
		if p.branch = getenv("GITHUB_HEAD_REF"); p.branch == "" {
			p.branch = getenv("GITHUB_REF_NAME")
		}
		return p
	case getenv("GITLAB_CI") == "true":
		p := place{system: "gitlab", runURL: getenv("CI_JOB_URL"), actor: getenv("GITLAB_USER_LOGIN"),
			commit: getenv("CI_COMMIT_SHA"), branch: getenv("CI_COMMIT_REF_NAME"), repoURL: getenv("CI_PROJECT_URL"),
			host: getenv("CI_SERVER_HOST"), user: "gitlab-ci-token", token: getenv("CI_JOB_TOKEN")}
		// Seconds, since GitLab and GitLab Runner 15.7, and ISO 8601 in UTC. What
		// cannot be read is as if it were not there: it is not the user's.
		if seconds, err := strconv.Atoi(getenv("CI_JOB_TIMEOUT")); err == nil && seconds > 0 {
			p.jobTimeout = time.Duration(seconds) * time.Second
		}
		if started, err := time.Parse(time.RFC3339, getenv("CI_JOB_STARTED_AT")); err == nil {
			p.jobStarted = started
		}
		return p
	}
	return place{}
}

// jobMargin is how long before a job's limit a run ends: what it takes to put the
// cluster in order, and the job's own end, which uploads the reports.
const jobMargin = time.Minute

// jobLimit is how long a run may take that begins now, as far as the job's own limit
// goes; zero if that is not known. The time that the job has used so far is judged
// by two clocks, GitLab's and this machine's; if that makes no sense, it counts as
// none.
func (p place) jobLimit(now time.Time) time.Duration {
	if p.jobTimeout <= 0 {
		return 0
	}
	left := p.jobTimeout
	if used := now.Sub(p.jobStarted); !p.jobStarted.IsZero() && used > 0 && used < left {
		left -= used
	}
	return max(time.Second, (left - min(jobMargin, left/4)).Truncate(time.Second))
}

// serves says whether the job's own repository is the one of the URL, so that
// the job's commit is meant by default.
func (p place) serves(repo string) bool {
	own, err := source.NormalizeURL(p.repoURL)
	if err != nil || p.repoURL == "" {
		return false
	}
	other, err := source.NormalizeURL(repo)
	return err == nil && own == other
}

func host(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	return u.Host
}

// remote says whether --repo is a URL and not a folder.
func remote(repo string) bool {
	return strings.Contains(repo, "://") || strings.HasPrefix(repo, "git@")
}
