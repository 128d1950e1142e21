package cache

import (
	"bytes"
	"testing"
)

// FuzzUnpack: what a file holds is either exactly what was kept under its key, or an error.
func FuzzUnpack(f *testing.F) {
	whole := pack(keyFor([]byte("asked")), []byte("head"), []byte("body"))
	for _, seed := range [][]byte{nil, whole, whole[:len(whole)-1], append(bytes.Clone(whole), 0), whole[:len(magic)], []byte(magic),
		bytes.Replace(whole, []byte("head"), []byte("tail"), 1), pack(keyFor(nil), nil, nil)} {
		f.Add(seed, []byte("asked"), []byte("head"), []byte("body"))
	}
	// A length beyond all that can be, under the right digest.
	rest := append(bytes.Repeat([]byte{0xff}, 8), "head"...)
	f.Add(append(append([]byte(magic), digest(keyFor([]byte("asked")), rest)...), rest...), []byte("asked"), []byte{}, []byte{0})
	f.Fuzz(func(t *testing.T, file, asked, head, body []byte) {
		key := keyFor(asked)
		for _, data := range [][]byte{file, append(append([]byte(magic), digest(key, file)...), file...)} {
			h, b, err := unpack(key, data)
			if err != nil {
				if h != nil || b != nil {
					t.Errorf("with the error %v it returns %q and %q", err, h, b)
				}
				continue
			}
			if again := pack(key, h, b); !bytes.Equal(again, data) {
				t.Errorf("%q is read as %q and %q, which is kept as %q", data, h, b, again)
			}
		}
		kept := pack(key, head, body)
		h, b, err := unpack(key, kept)
		if err != nil || !bytes.Equal(h, head) || !bytes.Equal(b, body) {
			t.Errorf("%q and %q come back as %q and %q, %v", head, body, h, b, err)
		}
		if _, _, err := unpack(keyFor(append(asked, 'x')), kept); err == nil {
			t.Error("it is taken for the entry of another key")
		}
		if len(file) > 0 {
			kept[int(file[0])%len(kept)] ^= 1
			if _, _, err := unpack(key, kept); err == nil {
				t.Error("a bit that was turned over is not noticed")
			}
		}
	})
}
