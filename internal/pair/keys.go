package pair

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// The files in a node's directory of keys.
const (
	keyFile  = "key.pem"  // this node's private key
	certFile = "cert.pem" // its certificate: number, cluster, public key
	peerFile = "peer.pem" // the certificate of the other node
)

// maxKeyFile is more than any of these files is long.
const maxKeyFile = 16 << 10

// Keys are what one node proves itself with, and knows the other one by.
type Keys struct {
	Cluster ClusterID
	Number  int // 1 or 2

	cert tls.Certificate
	own  ed25519.PublicKey
	peer ed25519.PublicKey
}

// ClusterID is drawn when the keys are made: the two nodes of a pair have the
// same one, and no other node has it.
type ClusterID [16]byte

// String returns the identifier as 32 hexadecimal digits.
func (id ClusterID) String() string { return hex.EncodeToString(id[:]) }

// Fingerprint is the SHA-256 of this node's public key, in hexadecimal digits.
func (k *Keys) Fingerprint() string { return fingerprint(k.own) }

// PeerFingerprint is that of the other node's.
func (k *Keys) PeerFingerprint() string { return fingerprint(k.peer) }

func fingerprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:])
}

// Init makes the keys of a new pair: the directories node1 and node2 in dir, one
// for each node. dir is made if it is not there. Nothing is overwritten, and
// nothing is left of what failed.
func Init(dir string) (cluster ClusterID, err error) {
	var undo []string
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				_ = os.Remove(undo[i]) // the error that is told is the one that led here
			}
		}
	}()
	if err := os.Mkdir(dir, 0o700); err == nil {
		undo = append(undo, dir)
	} else if !errors.Is(err, fs.ErrExist) {
		return cluster, fmt.Errorf("cannot make the directory for the keys: %w", err)
	}
	for n := 1; n <= 2; n++ {
		node := nodeDir(dir, n)
		if err := os.Mkdir(node, 0o700); errors.Is(err, fs.ErrExist) {
			return cluster, fmt.Errorf("%s is there already, and keys are not overwritten: give another directory, or move it away if its pair is no more", node)
		} else if err != nil {
			return cluster, fmt.Errorf("cannot make the directory for the keys of node %d: %w", n, err)
		}
		undo = append(undo, node)
	}
	if _, err := rand.Read(cluster[:]); err != nil {
		return cluster, fmt.Errorf("cannot draw an identifier for the pair: %w", err)
	}
	var keys, certs [2][]byte
	for i := range keys {
		if keys[i], certs[i], err = makeKey(cluster, i+1); err != nil {
			return cluster, err
		}
	}
	for i := range keys {
		for _, f := range []struct {
			name string
			text []byte
		}{{keyFile, keys[i]}, {certFile, certs[i]}, {peerFile, certs[1-i]}} {
			path := filepath.Join(nodeDir(dir, i+1), f.name)
			undo = append(undo, path)
			if err := writeNew(path, f.text); err != nil {
				return cluster, fmt.Errorf("cannot write the keys of node %d: %w", i+1, err)
			}
		}
	}
	return cluster, nil
}

func nodeDir(dir string, n int) string { return filepath.Join(dir, fmt.Sprintf("node%d", n)) }

// writeNew writes a file that was not there, for its owner alone, down to the disk.
func writeNew(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// makeKey returns a private key and its certificate, as PEM. The certificate is
// an envelope: its dates, its issuer and its signature mean nothing here.
func makeKey(cluster ClusterID, n int) (key, cert []byte, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot draw a key for node %d: %w", n, err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(n)),
		Subject:      pkix.Name{CommonName: nodeName(n), Organization: []string{certOrganization}, OrganizationalUnit: []string{cluster.String()}},
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 section 4.1.2.5: no end
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, priv)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make the certificate of node %d: %w", n, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot write down the key of node %d: %w", n, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

const certOrganization = "holdfast pair"

func nodeName(n int) string { return fmt.Sprintf("node%d", n) }

// LoadKeys reads the keys of one node from its directory. The error says which
// file is wrong, and how.
func LoadKeys(dir string) (*Keys, error) {
	if holdsBoth(dir) {
		return nil, fmt.Errorf("%s holds the keys of both nodes, as `holdfast pair init` made them: each node needs the files of one of them; here: cp %s/* %s/, and on the other node those of %s", dir, nodeDir(dir, 1), dir, nodeDir(dir, 2))
	}
	keyText, err := readKeyFile(dir, keyFile, true)
	if err != nil {
		return nil, err
	}
	keyPath := filepath.Join(dir, keyFile)
	block, _ := pem.Decode(keyText)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%s holds no private key: copy the directory again from where `holdfast pair init` made it", keyPath)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s holds no private key that can be read: %w; copy the directory again from where `holdfast pair init` made it", keyPath, err)
	}
	priv, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a key of another kind (%T): a pair uses the ed25519 keys that `holdfast pair init` makes", keyPath, parsed)
	}
	own, err := loadCert(dir, certFile)
	if err != nil {
		return nil, err
	}
	peer, err := loadCert(dir, peerFile)
	if err != nil {
		return nil, err
	}
	switch {
	case !own.key.Equal(priv.Public()):
		return nil, fmt.Errorf("%s is not the key of %s: files of two directories are mixed; copy one whole directory that `holdfast pair init` made", keyPath, filepath.Join(dir, certFile))
	case own.cluster != peer.cluster:
		return nil, fmt.Errorf("%s is of another pair (%s) than %s (%s): both nodes need the directories of one run of `holdfast pair init`", filepath.Join(dir, peerFile), peer.cluster, filepath.Join(dir, certFile), own.cluster)
	case own.key.Equal(peer.key) || own.number == peer.number:
		return nil, fmt.Errorf("%s is this node's own certificate, and must be the other node's: copy one whole directory that `holdfast pair init` made", filepath.Join(dir, peerFile))
	}
	return &Keys{
		Cluster: own.cluster,
		Number:  own.number,
		cert:    tls.Certificate{Certificate: [][]byte{own.der}, PrivateKey: priv},
		own:     own.key,
		peer:    peer.key,
	}, nil
}

// holdsBoth reports whether dir is what Init made, and not one of the directories
// in it.
func holdsBoth(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, keyFile)); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	for n := 1; n <= 2; n++ {
		if _, err := os.Lstat(filepath.Join(nodeDir(dir, n), certFile)); err != nil {
			return false
		}
	}
	return true
}

// byOthers are the bits of a mode by which others than the owner may write.
const byOthers = 0o022

// readKeyFile reads one of the files; a secret one must be its owner's alone, and
// nobody else may write the others, or put files in their place.
func readKeyFile(dir, name string, secret bool) ([]byte, error) {
	path := filepath.Join(dir, name)
	info, err := os.Stat(path) // opening a pipe would wait for a writer
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the keys of the pair are incomplete: %w; make them with `holdfast pair init`, and copy one of the two directories to each node", err)
	} else if err != nil {
		return nil, fmt.Errorf("cannot read the keys of the pair: %w", err)
	}
	above, err := os.Stat(dir)
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read the keys of the pair: %w", err)
	case runtime.GOOS != "windows" && above.Mode().Perm()&byOthers != 0:
		return nil, fmt.Errorf("%s can be written by others (mode %04o), who could put other keys there: chmod 700 %s", dir, above.Mode().Perm(), dir)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file: copy the directory again from where `holdfast pair init` made it", path)
	case secret && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s can be read or written by others (mode %04o), who could pose as this node: chmod 600 %s, or make new keys if somebody may have read it", path, info.Mode().Perm(), path)
	case runtime.GOOS != "windows" && info.Mode().Perm()&byOthers != 0:
		return nil, fmt.Errorf("%s can be written by others (mode %04o), who could name another node as the peer: chmod 600 %s, and compare it with the one that `holdfast pair init` made", path, info.Mode().Perm(), path)
	case info.Size() > maxKeyFile:
		return nil, fmt.Errorf("%s has %d bytes, which no key has: copy the directory again from where `holdfast pair init` made it", path, info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the keys of the pair: %w", err)
	}
	return text, nil
}

// identity is what a certificate says.
type identity struct {
	cluster ClusterID
	number  int
	key     ed25519.PublicKey
	der     []byte
}

func loadCert(dir, name string) (identity, error) {
	text, err := readKeyFile(dir, name, false)
	if err != nil {
		return identity{}, err
	}
	path := filepath.Join(dir, name)
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return identity{}, fmt.Errorf("%s holds no certificate: copy the directory again from where `holdfast pair init` made it", path)
	}
	id, err := parseIdentity(block.Bytes)
	if err != nil {
		return identity{}, fmt.Errorf("%s: %w; a pair uses the certificates that `holdfast pair init` makes", path, err)
	}
	return id, nil
}

// parseIdentity reads a certificate, of ours or of anybody who connects.
func parseIdentity(der []byte) (identity, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return identity{}, fmt.Errorf("not a certificate that can be read: %w", err)
	}
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return identity{}, fmt.Errorf("a certificate with a key of another kind (%s)", cert.PublicKeyAlgorithm)
	}
	id := identity{key: key, der: bytes.Clone(der)}
	s := cert.Subject
	if len(s.Organization) != 1 || s.Organization[0] != certOrganization || len(s.OrganizationalUnit) != 1 {
		return identity{}, errors.New("a certificate that is not of a pair")
	}
	raw, err := hex.DecodeString(s.OrganizationalUnit[0])
	if err != nil || len(raw) != len(id.cluster) {
		return identity{}, fmt.Errorf("a certificate whose pair %q is no identifier", s.OrganizationalUnit[0])
	}
	copy(id.cluster[:], raw)
	switch s.CommonName {
	case nodeName(1):
		id.number = 1
	case nodeName(2):
		id.number = 2
	default:
		return identity{}, fmt.Errorf("a certificate of node %q, which is neither node1 nor node2", s.CommonName)
	}
	return id, nil
}
