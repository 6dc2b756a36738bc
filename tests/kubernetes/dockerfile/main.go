// Reads a Dockerfile from standard input with BuildKit's own parser and prints its stages and the linter's warnings.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

type stage struct {
	Name, Base string
	Commands   []command
}

type command struct{ Name, Text string }

func main() {
	found, err := read()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(found)
}

func read() (map[string]any, error) {
	tree, err := parser.Parse(os.Stdin)
	if err != nil {
		return nil, err
	}
	warnings := []string{}
	for _, one := range tree.Warnings {
		warnings = append(warnings, one.Short)
	}
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, message string, _ []parser.Range) {
		warnings = append(warnings, rule+": "+message)
	}})
	stages, _, err := instructions.Parse(tree.AST, lint)
	if err != nil {
		return nil, err
	}
	found := []stage{}
	for _, one := range stages {
		commands := []command{}
		for _, each := range one.Commands {
			commands = append(commands, command{each.Name(), fmt.Sprint(each)})
		}
		found = append(found, stage{one.Name, one.BaseName, commands})
	}
	return map[string]any{"stages": found, "warnings": warnings}, nil
}
