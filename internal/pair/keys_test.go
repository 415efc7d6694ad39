package pair

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pair")
	cluster, err := Init(dir)
	if err != nil {
		t.Fatal(err)
	}
	var keys [2]*Keys
	for i := range keys {
		for _, name := range []string{keyFile, certFile, peerFile} {
			info, err := os.Stat(filepath.Join(nodeDir(dir, i+1), name))
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != 0o600 {
				t.Errorf("%s of node %d has mode %v", name, i+1, info.Mode())
			}
		}
		if info, err := os.Stat(nodeDir(dir, i+1)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("the directory of node %d: %v, %v", i+1, info.Mode(), err)
		}
		if keys[i], err = LoadKeys(nodeDir(dir, i+1)); err != nil {
			t.Fatal(err)
		}
		if keys[i].Number != i+1 || keys[i].Cluster != cluster {
			t.Errorf("node %d is %d of %s, want %s", i+1, keys[i].Number, keys[i].Cluster, cluster)
		}
	}
	if keys[0].Fingerprint() != keys[1].PeerFingerprint() || keys[1].Fingerprint() != keys[0].PeerFingerprint() || keys[0].Fingerprint() == keys[1].Fingerprint() {
		t.Error("the nodes do not know each other")
	}

	if _, err := LoadKeys(dir); err == nil || !strings.Contains(err.Error(), "keys of both nodes") {
		t.Errorf("the directory above: %v", err)
	}
	before := contents(t, dir)
	if _, err := Init(dir); err == nil || !strings.Contains(err.Error(), "not overwritten") {
		t.Errorf("a second run: %v", err)
	}
	if contents(t, dir) != before {
		t.Error("a second run changed what was there")
	}
	other := filepath.Join(t.TempDir(), "pair")
	if second, err := Init(other); err != nil || second == cluster {
		t.Errorf("another pair: %s, %v", second, err)
	}
}

// contents is everything below dir.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		b.WriteString(path)
		b.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestInitLeavesNothing: of what failed, nothing is left.
func TestInitLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(nodeDir(dir, 2), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(dir); err == nil {
		t.Fatal("half of a pair was overwritten")
	}
	if _, err := os.Stat(nodeDir(dir, 1)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("node 1 is left: %v", err)
	}
	if _, err := os.Stat(nodeDir(dir, 2)); err != nil {
		t.Errorf("what was there is gone: %v", err)
	}
	if _, err := Init(filepath.Join(dir, "no", "where")); err == nil {
		t.Error("keys in a directory whose parent is not there")
	}
}

// TestLoadKeysRefuses: each mistake of copying has its sentence.
func TestLoadKeysRefuses(t *testing.T) {
	read := func(t *testing.T, path string) []byte {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	write := func(t *testing.T, path string, text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	block := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	for _, tt := range []struct {
		name, want string
		spoil      func(t *testing.T, own, peer, other string)
	}{
		{"no key", "are incomplete", func(t *testing.T, own, _, _ string) { os.Remove(filepath.Join(own, keyFile)) }},
		{"no certificate", "are incomplete", func(t *testing.T, own, _, _ string) { os.Remove(filepath.Join(own, certFile)) }},
		{"no peer", "are incomplete", func(t *testing.T, own, _, _ string) { os.Remove(filepath.Join(own, peerFile)) }},
		{"no directory", "are incomplete", func(t *testing.T, own, _, _ string) { os.RemoveAll(own) }},
		{"a key for everybody", "chmod 600", func(t *testing.T, own, _, _ string) {
			if err := os.Chmod(filepath.Join(own, keyFile), 0o640); err != nil {
				t.Fatal(err)
			}
		}},
		{"a certificate that others may change", "chmod 600", func(t *testing.T, own, _, _ string) {
			if err := os.Chmod(filepath.Join(own, peerFile), 0o622); err != nil {
				t.Fatal(err)
			}
		}},
		{"a directory that others may change", "chmod 700", func(t *testing.T, own, _, _ string) {
			if err := os.Chmod(own, 0o770); err != nil {
				t.Fatal(err)
			}
		}},
		{"a pipe that nobody writes", "not a regular file", func(t *testing.T, own, _, _ string) {
			path := filepath.Join(own, keyFile)
			if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
				t.Fatal(err)
			}
		}},
		{"an empty key", "no private key", func(t *testing.T, own, _, _ string) { write(t, filepath.Join(own, keyFile), nil) }},
		{"a broken key", "can be read", func(t *testing.T, own, _, _ string) {
			write(t, filepath.Join(own, keyFile), block("PRIVATE KEY", []byte("x")))
		}},
		{"a key of another kind", "another kind", func(t *testing.T, own, _, _ string) {
			k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			der, err := x509.MarshalPKCS8PrivateKey(k)
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(own, keyFile), block("PRIVATE KEY", der))
		}},
		{"a huge key", "which no key has", func(t *testing.T, own, _, _ string) {
			write(t, filepath.Join(own, keyFile), make([]byte, maxKeyFile+1))
		}},
		{"a directory in place of the key", "not a regular file", func(t *testing.T, own, _, _ string) {
			os.Remove(filepath.Join(own, keyFile))
			if err := os.Mkdir(filepath.Join(own, keyFile), 0o700); err != nil {
				t.Fatal(err)
			}
		}},
		{"an empty certificate", "no certificate", func(t *testing.T, own, _, _ string) { write(t, filepath.Join(own, certFile), nil) }},
		{"a broken certificate", "can be read", func(t *testing.T, own, _, _ string) {
			write(t, filepath.Join(own, peerFile), block("CERTIFICATE", []byte("x")))
		}},
		{"the key of the other node", "is not the key of", func(t *testing.T, own, peer, _ string) {
			write(t, filepath.Join(own, keyFile), read(t, filepath.Join(peer, keyFile)))
		}},
		{"itself as its peer", "own certificate", func(t *testing.T, own, _, _ string) {
			write(t, filepath.Join(own, peerFile), read(t, filepath.Join(own, certFile)))
		}},
		{"the peer of another pair", "of another pair", func(t *testing.T, own, _, other string) {
			write(t, filepath.Join(own, peerFile), read(t, filepath.Join(other, peerFile)))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, other := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
			for _, d := range []string{dir, other} {
				if _, err := Init(d); err != nil {
					t.Fatal(err)
				}
			}
			tt.spoil(t, nodeDir(dir, 1), nodeDir(dir, 2), nodeDir(other, 1))
			_, err := LoadKeys(nodeDir(dir, 1))
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%v, want a sentence with %q and the file", err, tt.want)
			}
		})
	}
}

// FuzzIdentity: the certificate of whoever connects.
func FuzzIdentity(f *testing.F) {
	_, text, err := makeKey(ClusterID{1}, 1)
	if err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode(text)
	f.Add(block.Bytes)
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		id, err := parseIdentity(der)
		if (err == nil) != (id.key != nil) {
			t.Fatalf("%+v, %v", id, err)
		}
		if err == nil && id.number != 1 && id.number != 2 {
			t.Fatalf("node %d", id.number)
		}
	})
}
