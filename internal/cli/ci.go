package cli

import (
	"net/url"
	"strings"

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
		return place{system: "gitlab", runURL: getenv("CI_JOB_URL"), actor: getenv("GITLAB_USER_LOGIN"),
			commit: getenv("CI_COMMIT_SHA"), branch: getenv("CI_COMMIT_REF_NAME"), repoURL: getenv("CI_PROJECT_URL"),
			host: getenv("CI_SERVER_HOST"), user: "gitlab-ci-token", token: getenv("CI_JOB_TOKEN")}
	}
	return place{}
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
