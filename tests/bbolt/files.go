package main

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.etcd.io/bbolt"
)

// The same lines as the tool's dump, by bbolt.
func dump(path string) (string, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return "", err
	}
	defer db.Close()
	var lines strings.Builder
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, bucket *bbolt.Bucket) error {
			fmt.Fprintf(&lines, "bucket %x\n", name)
			return bucket.ForEach(func(key, value []byte) error {
				fmt.Fprintf(&lines, "%x %d %x\n", key, len(value), sha256.Sum256(value))
				return nil
			})
		})
	})
	return lines.String(), err
}

// bbolt's own proof that a file is sound.
func check(db *bbolt.DB) error {
	return db.View(func(tx *bbolt.Tx) error {
		var all error
		for err := range tx.Check() {
			all = errors.Join(all, err)
		}
		return all
	})
}

// The tool must read a file as bbolt does, and find it sound.
func readsTheSame(path string) error {
	theirs, err := dump(path)
	if err != nil {
		return err
	}
	ours, err := output(*tool, "dump", path)
	if err != nil {
		return err
	}
	if err := sameLines("the dump", ours, theirs); err != nil {
		return err
	}
	summary, err := output(*tool, "check", path)
	if err != nil {
		return err
	}
	pairs := strings.Count(theirs, "\n") - strings.Count(theirs, "bucket ")
	if !strings.Contains(summary, fmt.Sprintf("pairs: %d,", pairs)) {
		return fmt.Errorf("bbolt finds %d pairs, the proof %s", pairs, summary)
	}
	return nil
}

// A file that has lived: many transactions, deleted pairs and buckets, free pages, branches,
// overflow, buckets in place; in some, other page sizes and no free list.
func readsWhatBboltWrote(directory string, seed int64) error {
	random := rand.New(rand.NewSource(seed))
	path := filepath.Join(directory, "db")
	options := &bbolt.Options{NoFreelistSync: seed%3 == 0, NoSync: true, NoGrowSync: true}
	options.PageSize = []int{4096, 16384, 1024}[seed%3]
	db, err := bbolt.Open(path, 0o600, options)
	if err != nil {
		return err
	}
	for transaction := range 60 {
		err := db.Update(func(tx *bbolt.Tx) error { return change(tx, random, transaction) })
		if err != nil {
			return errors.Join(err, db.Close())
		}
	}
	if err := errors.Join(check(db), db.Close()); err != nil {
		return err
	}
	summary, err := output(*tool, "check", path)
	if err == nil && strings.Contains(summary, "pages_free: 0 ") {
		err = fmt.Errorf("no page was given back: %s", summary)
	}
	return errors.Join(err, readsTheSame(path))
}

func change(tx *bbolt.Tx, random *rand.Rand, transaction int) error {
	if transaction%20 == 19 {
		if err := tx.DeleteBucket([]byte("bucket 3")); err != nil {
			return err
		}
	}
	for number := range 6 {
		bucket, err := tx.CreateBucketIfNotExists([]byte(fmt.Sprintf("bucket %d", number)))
		if err != nil {
			return err
		}
		bucket.FillPercent = []float64{0.5, 0.9}[number%2]
		// The first stays empty, the second small, the last gets the largest values.
		for range []int{0, 1, 30, 100, 200, 40}[number] {
			key := make([]byte, 8, 8+number*60)
			binary.BigEndian.PutUint64(key, uint64(random.Intn(6000)))
			key = key[:8+random.Intn(number*60+1)]
			if random.Intn(3) == 0 {
				err = bucket.Delete(key)
			} else if number > 1 || transaction < 3 {
				size := random.Intn([]int{0, 20, 100, 300, 3000, 60000}[number])
				value := make([]byte, size)
				random.Read(value)
				err = bucket.Put(key, value)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// What we write must be sound to bbolt, read the same, and bear being changed: half of the pairs
// are deleted, which makes bbolt merge pages all over the tree.
func bboltTakesOurs(directory string, seed, keys int) error {
	path := filepath.Join(directory, "db")
	_, err := output(*tool, "write", path, strconv.Itoa(seed), strconv.Itoa(keys))
	if err != nil {
		return err
	}
	if err := readsTheSame(path); err != nil {
		return err
	}
	if err := digestEnds(path); err != nil {
		return err
	}
	for round := range 3 {
		if err := changeOurs(path, round); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if err := readsAllButDigest(path); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
	}
	return nil
}

// bbolt panics when it merges below a branch with a single child, so there must be none: with each
// number of leaves around where a branch ends and where a third level begins, the last leaf is
// left nearly empty, which makes bbolt merge it with a neighbour.
func bboltMergesOurs(directory string) error {
	path := filepath.Join(directory, "db")
	for _, end := range []int{123, 2 * 123, 3 * 123, 123 * 123} {
		for leaves := end - 2; leaves <= end+3; leaves++ {
			_, err := output(*tool, "leaves", path, strconv.Itoa(leaves))
			if err == nil {
				err = mergesLast(path, leaves)
			}
			if err != nil {
				return fmt.Errorf("%d leaves: %w", leaves, err)
			}
		}
	}
	return nil
}

func mergesLast(path string, leaves int) (err error) {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	db.NoSync = true
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("bbolt panics: %v", panicked)
			return
		}
		err = errors.Join(err, check(db), db.Close())
	}()
	return db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte("key"))
		if stats := bucket.Stats(); stats.LeafPageN != leaves {
			return fmt.Errorf("bbolt counts %d leaves", stats.LeafPageN)
		}
		cursor := bucket.Cursor()
		cursor.Last()
		large, _ := cursor.Prev()
		return bucket.Delete(large)
	})
}

// The file must end with the digest of the rest, and the rest must be whole pages.
func digestEnds(path string) error {
	file, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	end := len(file) - sha256.Size
	if end%4096 != 0 {
		return fmt.Errorf("%d bytes are not whole pages", end)
	}
	if digest := sha256.Sum256(file[:end]); string(digest[:]) != string(file[end:]) {
		return fmt.Errorf("the digest should be %x", digest)
	}
	return nil
}

func changeOurs(path string, round int) error {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	db.NoSync = true
	err = check(db)
	for half := range 2 {
		err = errors.Join(err, db.Update(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, bucket *bbolt.Bucket) error {
				return thin(bucket, round+half)
			})
		}))
	}
	return errors.Join(err, check(db), db.Close())
}

// Deletes a stretch of each thousand pairs and every second of the rest, and adds a few.
func thin(bucket *bbolt.Bucket, round int) error {
	var doomed [][]byte
	index := 0
	err := bucket.ForEach(func(key, _ []byte) error {
		if index%1000 < 300 || index%2 == round%2 {
			doomed = append(doomed, append([]byte(nil), key...))
		}
		index++
		return nil
	})
	for i, key := range doomed {
		err = errors.Join(err, bucket.Delete(key))
		if i%7 == 0 {
			err = errors.Join(err, bucket.Put(append(key, 'x'), make([]byte, i%5000)))
		}
	}
	return err
}

// After bbolt changed a file, what stands at its end is no digest any more; its size may still look
// like one, so only what bbolt reads is compared.
func readsAllButDigest(path string) error {
	theirs, err := dump(path)
	if err != nil {
		return err
	}
	ours, err := output(*tool, "dump", path)
	if err != nil {
		return err
	}
	return sameLines("the dump", ours, theirs)
}
