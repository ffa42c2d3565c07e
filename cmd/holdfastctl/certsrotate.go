package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/pki"
)

func (c *ctl) certsRotateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate-ca <subcommand>",
		Short: "Lets the authority give way to a new one, in three steps that can be taken back",
		Long: `Lets the authority give way to a new one, in three steps that can be taken back.

  holdfastctl certs rotate-ca begin    makes ca-next.pem; ca.pem holds both, the old one signs
      now ca.pem goes to all members, nodes and clients
  holdfastctl certs rotate-ca sign     the new one signs; ca.pem still holds both
      now 'certs renew', and the new certificates go to their holders
  holdfastctl certs rotate-ca finish   ca.pem holds the new one alone
      now ca.pem goes to all again

'back' takes the last step back, 'status' says which it was. Both authorities and
their keys stay in the folder, as ca-old and ca-next.
`,
	}
	cmd.AddCommand(c.textOnly(c.certsBeginCommand(),
		c.certsStepCommand("sign", "Second step: the new authority signs", func(pki.RotationStep) pki.RotationStep { return pki.RotationSign }),
		c.certsStepCommand("finish", "Third step: the old authority is not trusted any more", func(pki.RotationStep) pki.RotationStep { return pki.RotationDone }),
		c.certsStepCommand("back", "Takes the last step back", func(now pki.RotationStep) pki.RotationStep { return now - 1 }),
		c.certsRotationStatusCommand())...)
	return cmd
}

// What is to be done after each step.
var rotationNext = map[pki.RotationStep]string{
	pki.RotationNone:  "'certs rotate-ca begin' begins one",
	pki.RotationTrust: "bring ca.pem to all members, nodes and clients; when all have it: 'certs rotate-ca sign'",
	pki.RotationSign:  "'certs renew', and bring the new certificates to their holders; when all have them: 'certs rotate-ca finish'",
	pki.RotationDone:  "bring ca.pem to all members, nodes and clients",
}

func (c *ctl) rotated(r pki.Rotation, err error) error {
	if err != nil {
		return certsFailed(err)
	}
	fmt.Fprintf(c.out, "%s\nnext: %s\n", r.Step, rotationNext[r.Step])
	return nil
}

func (c *ctl) certsBeginCommand() *cobra.Command {
	var f certFlags
	cmd := &cobra.Command{
		Use:   "begin",
		Short: "First step: a new authority is made and trusted beside the old one",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArguments("certs rotate-ca begin takes no arguments: the folder is --dir")
			}
			return c.rotated(f.store().BeginRotation(pki.AuthorityRequest{CommonName: f.commonName, Validity: f.validity, Key: pki.KeyType(f.key)}))
		},
	}
	f.declare(cmd.Flags(), "holdfast CA")
	if err := cmd.Flags().MarkHidden("replace"); err != nil {
		c.logger().Debug("flag cannot be hidden", "error", err)
	}
	return cmd
}

func (c *ctl) certsStepCommand(use, short string, to func(now pki.RotationStep) pki.RotationStep) *cobra.Command {
	var f certFlags
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArguments("certs rotate-ca %s takes no arguments: the folder is --dir", use)
			}
			now, err := f.store().Rotation()
			if err != nil {
				return certsFailed(err)
			}
			return c.rotated(f.store().StepRotation(to(now.Step)))
		},
	}
	cmd.Flags().StringVar(&f.dir, "dir", ".", "folder of the authority")
	return cmd
}

func (c *ctl) certsRotationStatusCommand() *cobra.Command {
	var f certFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Says how far the rotation is",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArguments("certs rotate-ca status takes no arguments: the folder is --dir")
			}
			return c.rotated(f.store().Rotation())
		},
	}
	cmd.Flags().StringVar(&f.dir, "dir", ".", "folder of the authority")
	return cmd
}
