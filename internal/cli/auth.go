package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sluicerun/sluice/internal/source"
)

// auth collects the credentials for Git: what the user set, else the CI job's
// own token if the repository lies on the forge that the job belongs to.
func auth(getenv func(string) string, repo string, p place) (source.Auth, error) {
	a := source.Auth{
		Token:      getenv("SLUICE_GIT_TOKEN"),
		Username:   getenv("SLUICE_GIT_USERNAME"),
		Password:   getenv("SLUICE_GIT_PASSWORD"),
		Passphrase: getenv("SLUICE_SSH_KEY_PASSPHRASE"),
		SSHAgent:   getenv("SSH_AUTH_SOCK"),
	}
	var err error
	if a.CA, err = readNamed(getenv, "SLUICE_GIT_CA_FILE"); err != nil {
		return a, err
	}
	if a.SSHKey, err = readNamed(getenv, "SLUICE_SSH_KEY_FILE"); err != nil {
		return a, err
	}
	if a.KnownHosts, err = readNamed(getenv, "SLUICE_SSH_KNOWN_HOSTS_FILE"); err != nil {
		return a, err
	}
	if home := getenv("HOME"); a.KnownHosts == nil && home != "" {
		a.KnownHosts, err = os.ReadFile(filepath.Join(home, ".ssh", "known_hosts"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return a, fmt.Errorf("cannot read the known hosts: %w", err)
		}
	}
	if a.Token == "" && a.Password == "" && remote(repo) && p.host != "" && host(repo) == p.host {
		a.Token = p.token
		if a.Username == "" {
			a.Username = p.user
		}
	}
	return a, nil
}

// readNamed reads the file that a variable names, if it names one.
func readNamed(getenv func(string) string, name string) ([]byte, error) {
	path := getenv(name)
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the file that %s names: %w", name, err)
	}
	return text, nil
}
