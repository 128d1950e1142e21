package cli

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// flagsFirst moves the flags of a command line in front of its names, since
// urfave/cli reads none after the first name and people write them there, as
// Flux's and kubectl's commands allow it. What stands after "--" stays.
func flagsFirst(app *cli.App, args []string) []string {
	if len(args) < 3 {
		return args
	}
	command := app.Command(args[1])
	if command == nil || command.ArgsUsage == "" {
		return args
	}
	flags, names := slices.Clone(args[:2]), []string{}
	for rest := args[2:]; len(rest) > 0; rest = rest[1:] {
		arg := rest[0]
		switch {
		case arg == "--":
			return append(append(append(flags, "--"), names...), rest[1:]...)
		case !strings.HasPrefix(arg, "-") || arg == "-":
			names = append(names, arg)
			continue
		}
		flags = append(flags, arg)
		if len(rest) > 1 && !strings.Contains(arg, "=") && takesValue(command, strings.TrimLeft(arg, "-")) {
			flags = append(flags, rest[1])
			rest = rest[1:]
		}
	}
	return append(flags, names...)
}

// takesValue says whether the next word belongs to a flag.
func takesValue(command *cli.Command, name string) bool {
	for _, f := range command.Flags {
		if slices.Contains(f.Names(), name) {
			_, isSwitch := f.(*cli.BoolFlag)
			return !isSwitch
		}
	}
	return false
}
