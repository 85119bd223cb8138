"""The paper's five observations on the miniature: python benchmark/observations.py OUTPUT (of benchmark/observations.sh)

The rules below were written down before the first run; nothing here was chosen after a number was seen.

Accuracy is Pass@1 at T = 1 of the last checkpoint on 200 held-out problems x 16 (the authors' verdict), averaged over
seeds where there are several. The error of a difference is sqrt(s_problems^2 + s_seeds^2): standard error over problems
of the paired difference, and over seeds. A is BETTER than B if the difference is more than MARGIN points and more than
two errors; WORSE the other way round. CONDITIONS: variable and fixed length, the hard level, more and fewer guesses.

1. "Distribution sharpening can sometimes bridge the gap to task reward, but is unreliable; task reward is consistent."
   a. task reward is better than Base in every condition
   b. sharpening or tempered 2 is better than Base in some condition, and there within BRIDGE points of task reward
   c. sharpening or tempered 2 is not better than Base in some other condition
   agree: a, b and c. disagree: not a, or not c. undecided: only b fails.
2. "The optima of sharpening are unfavourable; better optimisation does not systematically mean better performance."
   a. on the easy level, and b. on the hard level: some answers that are less likely than the argmax of pi_base (the exact
      optimum) are better than it: those of T = 1/2, T = 1/4 or a beam of width 4 (penalty 0)
   c. in a run of sharpening at variable length, from its best validated step to the end the return rises and validation
      accuracy falls by more than MARGIN points and two errors: in most seeds on the easy level, or on the hard level
   agree: a, b and c. disagree: neither a nor b. undecided: otherwise.
3. "Inference-time sharpening helps because its compute does not reach the optimum."
   a. beam search (penalty 0): the widest beam is likelier and worse than some narrower one, on either level
   b. power sampling (exact, alpha 2 or 4): after some number of moves it is better than the exact optimum pi_base^alpha
   agree: a and b. disagree: neither. undecided: otherwise.
4. "Keeping everything else constant, more reliance on task reward improves performance and stability."
   For alpha 1.25, 2 and 4, beta going down inf, 0.3, 0.1 (one seed each, variable length):
   a. beta 0.1 is better than beta inf, for each alpha
   b. no step down in beta is worse than the one before
   c. the fall from best validated step to the last is not larger at 0.1 than at inf by MARGIN points and two errors
   agree: a, b and c. disagree: a fails for two alphas or more. undecided: otherwise.
5. "Tilted sampling only sometimes gives marginal improvements over task reward, and is unstable for high beta or alpha."
   a. no tilted run (beta 0.3 or 0.1) is better than task reward by more than BRIDGE points and two errors
   b. some run with alpha 4 or beta inf (alpha > 1) is worse than task reward
   agree: a and b. disagree: not a. undecided: only b fails.
And Section 4.1: gains of task reward are larger where Base is weak: its gain on the hard level is better than on the easy.
"""

MARGIN, BRIDGE = 2.0, 5.0  # points of accuracy
