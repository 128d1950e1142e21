package gittest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// SSHServer is a running SSH server of one repository.
type SSHServer struct {
	// URL is the repository's, ssh://git@127.0.0.1:PORT/…
	URL string
	// KnownHosts is the known_hosts file that names the server's key.
	KnownHosts []byte

	done sync.WaitGroup
}

// NewKey makes a key pair: the private key as PEM, encrypted if the passphrase is not empty, and the public key.
func NewKey(t testing.TB, passphrase string) ([]byte, ssh.PublicKey) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(private, "gittest")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "gittest", []byte(passphrase))
	}
	check(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	check(t, err)
	return pem.EncodeToMemory(block), signer.PublicKey()
}

// ServeSSH serves a repository over SSH on a free local port until the test ends. It lets in the user git with one of the
// keys, and answers one command: git-upload-pack with the path of its URL. anyCommit is [HTTP.AnyCommit].
func ServeSSH(t testing.TB, r *TestRepo, anyCommit bool, keys ...ssh.PublicKey) *SSHServer {
	t.Helper()
	if anyCommit {
		allowAnyCommit(r)
	}
	hostKey, hostPublic := NewKey(t, "")
	signer, err := ssh.ParsePrivateKey(hostKey)
	check(t, err)
	config := &ssh.ServerConfig{
		PublicKeyCallback: func(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			for _, allowed := range keys {
				if meta.User() == "git" && bytes.Equal(key.Marshal(), allowed.Marshal()) {
					return nil, nil
				}
			}
			return nil, errors.New("this key may not")
		},
	}
	config.AddHostKey(signer)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	address := listener.Addr().String()
	name := "/" + filepath.Base(r.Dir) + ".git"
	server := &SSHServer{
		URL:        "ssh://git@" + address + name,
		KnownHosts: []byte(knownhosts.Line([]string{address}, hostPublic) + "\n"),
	}
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	server.done.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed below
			}
			mu.Lock()
			open[conn] = true
			mu.Unlock()
			server.done.Go(func() {
				defer conn.Close()
				serveSSH(conn, config, name, r.Dir)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for conn := range open {
			conn.Close()
		}
		mu.Unlock()
		server.done.Wait()
	})
	return server
}

// serveSSH handles one connection. Its errors are the client's business: a test sees them there.
func serveSSH(conn net.Conn, config *ssh.ServerConfig, name, dir string) {
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for offered := range channels {
		if offered.ChannelType() != "session" {
			_ = offered.Reject(ssh.UnknownChannelType, "only sessions")
			continue
		}
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		go serveSession(channel, requests, name, dir)
	}
}

func serveSession(channel ssh.Channel, requests <-chan *ssh.Request, name, dir string) {
	defer channel.Close()
	for request := range requests {
		var exec struct{ Command string }
		if request.Type != "exec" || ssh.Unmarshal(request.Payload, &exec) != nil {
			_ = request.Reply(false, nil)
			continue
		}
		_ = request.Reply(true, nil)
		code := upload(channel, exec.Command, name, dir)
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{code}))
		return
	}
}

func upload(channel ssh.Channel, command, name, dir string) uint32 {
	if command != "git-upload-pack '"+name+"'" && command != "git-upload-pack '"+strings.TrimPrefix(name, "/")+"'" {
		fmt.Fprintf(channel.Stderr(), "ERROR: Repository not found.\n")
		return 1
	}
	cmd := exec.Command("git", "upload-pack", dir)
	cmd.Env = Environment()
	cmd.Stdout = channel
	cmd.Stderr = channel.Stderr()
	stdin, err := cmd.StdinPipe()
	if err != nil || cmd.Start() != nil {
		return 1
	}
	go func() {
		_, _ = io.Copy(stdin, channel) // ends with the channel
		stdin.Close()
	}()
	if cmd.Wait() != nil {
		return 1
	}
	return 0
}
