package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// unwanted is one pattern that committed text must not hold.
type unwanted struct {
	pattern *regexp.Regexp
	why     string
	prose   bool // a matter of writing: not looked for in data, checksums and generated files
}

// unwantedWords returns the patterns. They are put together from pieces, so that this file does not hold them.
func unwantedWords() []unwanted {
	notes := strings.Join([]string{"TO" + "DO", "FIX" + "ME", "X" + "XX"}, "|")
	return []unwanted{
		{why: "a path outside the repository", pattern: regexp.MustCompile(`\.\./` + "shared")},
		{why: "a path of one machine", pattern: regexp.MustCompile("/wo" + "rk/")},
		{why: "a note to self: do it, or say it in an issue", prose: true,
			pattern: regexp.MustCompile(`\b(` + notes + `)\b`)},
	}
}

// checkWords reports unwanted words in every file that is committed, or would be.
func checkWords(root string) ([]finding, error) {
	files, err := committed(root)
	if err != nil {
		return nil, err
	}
	var all []finding
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
		if os.IsNotExist(err) {
			continue // deleted and not yet committed so
		}
		if err != nil {
			return nil, err
		}
		all = append(all, checkText(file, text)...)
	}
	return all, nil
}

// checkText reports unwanted words in one file. Binary files are let through.
func checkText(file string, text []byte) []finding {
	if bytes.IndexByte(text[:min(len(text), 8000)], 0) >= 0 {
		return nil
	}
	data := filepath.Base(file) == "go.sum" || strings.Contains("/"+file, "/testdata/") ||
		bytes.Contains(text[:min(len(text), 2000)], []byte("Code generated "))
	var all []finding
	for _, word := range unwantedWords() {
		if word.prose && data {
			continue
		}
		for _, at := range word.pattern.FindAllIndex(text, -1) {
			line := 1 + bytes.Count(text[:at[0]], []byte("\n"))
			all = append(all, finding{file: file, line: line, rule: ruleWords,
				text: fmt.Sprintf("%q: %s", text[at[0]:at[1]], word.why)})
		}
	}
	return all
}

// committed lists the files that git has or would take, with forward slashes; without git, every file below root.
func committed(root string) ([]string, error) {
	if _, err := os.Stat(filepath.Join(root, ".git")); err == nil {
		cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
		cmd.Dir = root
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("git ls-files: %w", err)
		}
		return strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 }), nil
	}
	var files []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		files = append(files, filepath.ToSlash(rel))
		return err
	})
	return files, err
}
