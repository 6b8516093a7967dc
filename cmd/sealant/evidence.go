package main

import (
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
)

func newEvidence() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "evidence",
		Short: "whether an improvement makes apps crash, as this device sees it",
		Long: `Evidence shows, for each app that the vendor lists and each that was counted, how
often it crashed with an improvement and without, and what follows from that. The
counts never leave this device. A burst of crashes counts as one: for 4 hours after a
counted crash neither crashes nor use count.

Only a listed app that crashes clearly more often than before makes this device ask
whether to remove the improvements. It never removes anything by itself; keep and
remove answer the question. explain computes the test for any numbers.`,
		Example: "  sealant evidence\n  sealant evidence keep\n  sudo sealant evidence remove",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := ask[device.Evidence](cmd, "evidence", none{})
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.evidence/1", e)
			}
			return printEvidence(s, e)
		},
	}
	cmd.AddCommand(newExplain(), newKeep(), newEvidenceRemove())
	return cmd
}

func printEvidence(s *cli.Screen, e device.Evidence) error {
	if e.Name != "" {
		printf(s, "%s %s\n", e.Name, e.Release)
	}
	if e.Damage != nil {
		printf(s, "%s %s crashed on damaged content. Repair it: sealant install. The improvement is not to blame.\n", s.Bad(), e.Damage.App)
	}
	if len(e.Apps) == 0 {
		printf(s, "No app has run with an improvement yet.\n")
	} else {
		w := tabwriter.NewWriter(s.Out, 0, 8, 2, ' ', 0)
		row := func(format string, args ...any) { _, _ = w.Write([]byte(plain(s, sprintf(format, args...)))) }
		row("APP\tIMPROVEMENT\tBEFORE\tSINCE\tE\tVERDICT\n")
		for _, a := range e.Apps {
			value := s.Dash()
			if a.E != nil {
				value = strength(*a.E) + sprintf(" (asks at %g)", a.Needed)
			}
			verdict := a.Text
			if !a.Listed {
				verdict = "not listed by the vendor: nothing is asked"
			}
			row("%s\t%s\t%s\t%s\t%s\t%s\n", a.App, a.Label, rate(a.X0, a.T0), rate(a.X1, a.T1), value, verdict)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if e.Pending != nil {
		printf(s, "\n%s %s\n  sealant evidence keep     keep the improvements\n  sealant evidence remove   remove them all; a restart completes it\n", s.Warn(), e.Pending.Text)
	}
	if e.Counting == "" {
		s.Notef("%s Crashes are not being counted now (sealant doctor).\n", s.Warn())
	}
	return nil
}

// strength writes an E for a table.
func strength(e float64) string {
	switch {
	case e >= 1000:
		return "over 1000"
	case e < 0.01:
		return "under 0.01"
	case e < 10:
		return sprintf("%.2f", e)
	}
	return sprintf("%.0f", e)
}

// rate writes crashes and hours of use.
func rate(crashes int64, hours float64) string {
	word := "crashes"
	if crashes == 1 {
		word = "crash"
	}
	return sprintf("%d %s in %.1f h", crashes, word, hours)
}

func newKeep() *cobra.Command {
	return &cobra.Command{
		Use:     "keep",
		Short:   "answer the question: keep the improvements",
		Long:    "Keep answers the question that this device asks, and changes nothing else. It is not\nasked again for a week.",
		Example: "  sealant evidence keep",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := ask[device.Question](cmd, "answer", device.AnswerOptions{Answer: evidence.Keep})
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.answer/1", q)
			}
			printf(s, "%s %s stays. You are not asked again for 7 days.\n", s.Good(), q.Release)
			return nil
		},
	}
}

func newEvidenceRemove() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "answer the question: remove all improvements",
		Long: `Remove answers the question that this device asks with the normal removal of all
improvements (sealant remove); a restart completes it. sealant reapply puts them back.`,
		Example: "  sudo sealant evidence remove",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := cli.For(cmd)
			e, err := ask[device.Evidence](cmd, "evidence", none{})
			if err != nil {
				return err
			}
			if e.Pending == nil {
				return fault.New(fault.Failed, "cannot take the answer: nothing was asked").Hint("sealant remove removes improvements unasked")
			}
			s.Notef("%s\n", plain(s, e.Pending.Text))
			return remove(cmd, device.RemoveOptions{}, yes, func() error {
				_, err := ask[device.Question](cmd, "answer", device.AnswerOptions{Answer: evidence.Remove})
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "skip the question (never a check)")
	return cmd
}
