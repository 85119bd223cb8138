"""RLOO on the task reward alone (Table 1).

    R(y) = r_task                                                   Eq. 3   optimum: all mass on the highest reward

    python rloo_task.py --model Qwen/Qwen2.5-3B-Instruct
    torchrun --nproc-per-node 4 rloo_task.py --model Qwen/Qwen2.5-3B-Instruct

    A_i  = R_i - mean of R_j over the other responses to the prompt leave-one-out (App. A), not divided by a deviation
    grad = 1/N sum_i A_i sum_t w_it grad log pi_theta(y_it)         N response tokens of the step

Strictly on-policy: one sampling, one policy forward, one optimizer step a batch, so there is no ratio to clip. A
micro-batch is whole groups: log-probabilities, return, baseline, loss and backward happen in one pass. The return is
data (detached), summed over the response with its stop token; Z is the same for a whole group and cancels in A. The
weight w = pi_theta / pi_sampler corrects for the sampler's arithmetic (App. A). To try an idea: copy this file and edit
`objective` or `task_reward`; nothing else has to agree with them.
Shapes: P problems, G group, B = P*G responses; in one micro-batch b responses of N tokens.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from common.data import Problem, batch_indices, load_prompts, load_tokenizer, load_training, load_validation
from common.evaluate import validate
from common.grading import Grader, Verdict
from common.logprob import base_logprobs, full_tensor, load_model, packed_microbatches, token_logprobs, weights
from common.rollout import start_sampler
from common.run import Run, compute_dtype, rank_slice, resolve_model, start, start_processes
from common.run import arguments as arg
from common.run.memory import check_memory, moments_on_device
from common.run.metrics import Metrics
from common.run.unknown import UNKNOWN, one_for_each, reads_unknown


@dataclass
class Args:
    # --- objective ---
    reward_verdict: Literal["authors", "strict"] = "authors"
    """verdict that pays; authors: math-verify on the whole text, boxed or not, as in the paper; strict: the last box"""
    fixed_length: bool = False
    """treat EOS as an ordinary token, so that every response fills the window (App. B)"""
    grade_after_eos: bool = False
    """with --fixed-length, grade the whole window, as the authors' code did, instead of the text up to the first EOS"""
    loss_denominator: Literal["tokens", "responses"] = "tokens"
    """what divides the loss: response tokens of the step (the authors' code), or responses, unbiased at any length"""

    # --- model and data ---
    model: str = "Qwen/Qwen2.5-3B-Instruct"
    """Hugging Face id or folder of the model; toy for the built-in miniature"""
    dataset: str = "math"
    """training set: math, deepscaler, gsm8k, toy, toy_hard, or a .jsonl(.gz) file with problem and answer"""
    validation_dataset: str = ""
    """validation set, a name or a file; empty for the one that belongs to the training set"""
    validation_size: arg.NonNegativeInt = 0
    """number of validation problems, drawn once by the seed; 0 for all"""
    prompt_file: str = ""
    """text file with the wording of the prompt, with {problem}; empty for the training set's own"""
    examples_file: str = ""
    """worked examples (.jsonl with problem and solution) to put before every problem"""
    system_prompt: str = ""
    """system turn to put before the conversation; empty for the chat template's own"""
    chat_template_kwargs: str = ""
    """arguments for the chat template as a JSON object, such as '{"enable_thinking": false}'"""
    max_total_tokens: arg.AtLeastTwo = 2048
    """window: tokens of prompt and response together (the authors' code; the paper says response length)"""
    lora_rank: arg.NonNegativeInt = 0
    """rank of LoRA adapters to train instead of all weights, with a learning rate about ten times larger; 0 for none"""

    # --- optimization ---
    seed: arg.Seed = 42
    """random seed for batches, sampling and LoRA initialisation"""
    num_steps: arg.PositiveInt = 500
    """number of optimizer steps"""
    num_problems: arg.PositiveInt = 32
    """P, problems in a step, over all processes"""
    group_size: arg.AtLeastTwo = 8
    """G, responses to a problem; the leave-one-out mean needs two"""
    learning_rate: arg.PositiveFloat = 1e-6
    """peak learning rate of AdamW, constant after the warm-up (App. A)"""
    warmup_steps: arg.NonNegativeInt = 50
    """steps of linear warm-up from a tenth of the learning rate (App. A)"""
    weight_decay: arg.NonNegativeFloat = 0.01
    """AdamW weight decay (App. A)"""
    max_grad_norm: arg.PositiveOrInf = 1.0
    """L2 norm that the gradient is clipped to; inf for no clipping (not in the paper; the authors' code)"""
    importance_weight_cap: arg.PositiveOrInf = 20.0
    """largest weight pi_theta / pi_sampler of a token; inf for no limit (not in the paper; the authors' code)"""

    # --- speed and memory ---
    sampler: Literal["auto", "vllm", "transformers"] = "auto"
    """program that samples; auto: vLLM on a GPU, transformers on a CPU"""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """compute precision; auto: bfloat16 on a GPU, float32 on a CPU; master weights are always float32"""
    microbatch_tokens: arg.NonNegativeInt = 0
    """most tokens in a forward pass, each response with its prompt; groups stay whole; 0 for what fits the memory"""
    checkpoint_activations: bool = True
    """recompute every layer in the backward pass, which saves memory"""
    compile_layers: bool = True
    """compile every decoder layer on a GPU: faster, but results differ by rounding and the first step is slow"""
    moments_on_host: bool = False
    """keep Adam's moments in host memory outside the optimizer step; also done if a GPU would be too small otherwise"""
    gpu_memory_utilization: arg.Share = 0.4
    """share of the GPU's memory that vLLM may take while it samples"""
    skip_memory_check: bool = False
    """start even if the memory estimate says that the run does not fit"""
    base_curves: bool = True
    """log log pi_base and the KL even when the objective ignores them; costs a base copy and a forward pass"""
    num_grading_workers: arg.Workers = 0
    """number of grading processes; 0 for one a core, at most 16"""

    # --- output ---
    eval_every: arg.PositiveInt = 20
    """number of steps between validations with a checkpoint; start and end are validated too"""
    keep_all_checkpoints: bool = False
    """keep every checkpoint instead of the newest and the best"""
    remove_state_first: bool = False
    """for small disks: remove the old resume state before the new one is written; a kill in between loses both"""
    output_dir: str = "runs"
    """folder in which the run folder is made"""
    exp_name: arg.FolderName = ""
    """first part of the run folder's name; empty for the name of the script"""
    track: bool = False
    """show the run at Weights & Biases too (pip install wandb), in the project that WANDB_PROJECT names"""
    resume: str = ""
    """run folder to continue, with the arguments of its first start"""

    def __post_init__(self):
        arg.check_arguments(self)


def task_reward(texts: list[str], problems: list[Problem], verdicts: list[Verdict], args: Args) -> list[float]:
    """r_task of each response, from its text, its problem (with `answer`) and the verdicts on it."""
    return [float(getattr(verdict, args.reward_verdict)) for verdict in verdicts]


def objective(r_task, logp, logp_base, entropy, length, args: Args) -> torch.Tensor:
    """The return of each response (b,): Eq. 3.

    All inputs are data, (b,) float64, of whole groups: task reward; log pi_theta, log pi_base and next-token entropy of
    the policy, each summed over the response, in nats; length in tokens."""
    return r_task


def early_returns(r_task: torch.Tensor, length: torch.Tensor, args: Args) -> tuple[torch.Tensor | None, list[bool]]:
    """The returns (B,) if `objective` reads neither log-probabilities nor entropy, so that they are known before the
    pass, else None; and whether each group needs a backward pass: one of equal returns has no advantages."""
    inputs = r_task, UNKNOWN, UNKNOWN, UNKNOWN, length, args
    if reads_unknown(objective, *inputs):
        return None, [True] * (len(r_task) // args.group_size)
    returns = one_for_each(objective(*inputs), len(r_task), "objective", r_task.device)
    return returns, [len(set(group)) > 1 for group in returns.view(-1, args.group_size).tolist()]


def leave_one_out(returns: torch.Tensor, group_size: int) -> torch.Tensor:
    """Each return less the mean of the others in its group: (b,) -> (b,)."""
    groups = returns.view(-1, group_size)
    others = (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
    return (groups - others).view(-1)


def policy_loss(token_logp, sampler_logp, advantages, cap: float) -> torch.Tensor:
    """Scalar whose gradient is minus the estimator without its denominator; of (N,) each, weights cut at `cap`."""
    importance_weight = (token_logp.detach() - sampler_logp).exp().clamp(max=cap)
    return -(importance_weight * advantages * token_logp).sum()


def main(args: Args, sampler=None, grader=None, run_class=Run) -> None:
    device = start_processes(args.seed)
    mine = rank_slice(args.num_problems)  # this process's part of every batch
    dtype = compute_dtype(args.dtype, device)
    path = resolve_model(args.model, args.max_total_tokens, to_train=True)
    tokenizer = load_tokenizer(path)
    problems, prompts = load_training(tokenizer, args)
    validation = load_prompts(tokenizer, load_validation(args), args)
    some = torch.arange(args.group_size, dtype=torch.float64) % 2  # any values: is log pi_base read?
    needs_base = args.base_curves or reads_unknown(objective, some, some, UNKNOWN, some, some, args)
    check_memory(path, args, device, dtype, needs_base)
    run = run_class(args, __file__, path, {"training": (problems, prompts), "validation": validation})
    policy = load_model(path, args, device, dtype)
    base = load_model(path, args, device, dtype, trainable=False) if needs_base and not args.lora_rank else None
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.learning_rate, weight_decay=args.weight_decay, fused=True)
    sampler = sampler or start_sampler(
        args.sampler, path, args.max_total_tokens, dtype=dtype, device=device,
        gpu_memory_utilization=args.gpu_memory_utilization,
    )  # fmt: skip
    grader = grader or Grader(args.num_grading_workers)

    for step in run.steps(policy, optimizer):
        metrics, figures = Metrics(step), {}
        with metrics.time("sync"):
            sampler.push(weights(policy))
        if step % args.eval_every == 0 or step == args.num_steps:
            with metrics.pause():
                figures = validate(sampler, tokenizer, grader, *validation, args)
                run.save(step, policy, optimizer, tokenizer, sampler.stop_ids, figures)
        if step == args.num_steps:
            run.log(step, figures)
            break

        # 1. sample G responses to each of this process's problems
        with metrics.time("rollout"):
            chosen = batch_indices(len(problems), args.num_problems, args.seed, step)[mine]
            batch = metrics.batch = [problems[i] for i in chosen]
            rollout = sampler.generate(
                [prompts[i] for i in chosen], args.group_size, args.max_total_tokens, args.seed, step,
                [problem.id for problem in batch], fixed_length=args.fixed_length,
            )  # fmt: skip
            sampler.sleep()
        num_tokens = metrics.rollout(rollout, len(tokenizer))  # of all processes
        denominator = num_tokens if args.loss_denominator == "tokens" else args.num_problems * args.group_size

        # 2. grade them
        with metrics.time("grade"):
            texts = rollout.texts(tokenizer, [] if args.grade_after_eos else sampler.stop_ids)
            owners = [problem for problem in batch for _ in range(args.group_size)]  # the problem of each response
            verdicts = grader.grade(texts, owners)
            rewards = task_reward(texts, owners, verdicts, args)
            r_task = one_for_each(rewards, len(texts), "task_reward", device)  # (B,)
        length = torch.tensor([len(tokens) for tokens in rollout.responses], dtype=torch.float64, device=device)
        early, needs_backward = early_returns(r_task, length, args)

        # 3. one pass over the groups: log-probabilities, return, leave-one-out, loss, backward
        with metrics.time("train"):
            for packed, backward in packed_microbatches(rollout, needs_backward, args.microbatch_tokens, device):
                rows = packed.rows
                with torch.set_grad_enabled(backward):
                    token_logp, token_entropy = token_logprobs(policy, packed)  # (N,), (N,)
                logp, entropy = packed.sum(token_logp.detach()), packed.sum(token_entropy)  # (b,), (b,)
                logp_base = packed.sum(base_logprobs(policy, base, packed)) if needs_base else UNKNOWN  # (b,)
                if early is not None:
                    returns = early[rows]  # (b,)
                else:
                    returns = objective(r_task[rows], logp, logp_base, entropy, length[rows], args)
                    returns = one_for_each(returns, len(logp), "objective", device)  # (b,)
                advantages = packed.spread(leave_one_out(returns, args.group_size))  # (N,)
                loss = policy_loss(token_logp, packed.sampler_logp, advantages, args.importance_weight_cap)
                loss = loss / denominator
                metrics.watch("loss", loss, [batch[group].id for group in packed.groups])
                if backward:
                    loss.backward()
                metrics.add_mean("objective/return", returns)
                if needs_base:
                    metrics.add_mean("objective/logp_base", logp_base)
                    metrics.add_mean("objective/kl_base", logp - logp_base)
                metrics.add_sum("losses/policy_loss", loss.detach())
                metrics.tokens(token_logp.detach(), token_entropy, packed.sampler_logp)
            grad_norm = full_tensor(torch.nn.utils.clip_grad_norm_(trained, args.max_grad_norm))
            metrics.watch("gradient norm", grad_norm, [problem.id for problem in batch])
            metrics.stop_unless_finite()
            warm = 0.1 + 0.9 * step / args.warmup_steps if step < args.warmup_steps else 1.0
            optimizer.param_groups[0]["lr"] = warm * args.learning_rate
            with moments_on_device(optimizer, args.moments_on_host):
                optimizer.step()
            optimizer.zero_grad()

        # 4. what happened
        metrics.add_mean("objective/task_reward", r_task)
        metrics.add_mean("objective/strict_reward", [float(verdict.strict) for verdict in verdicts])
        metrics.add_mean("losses/grad_norm", grad_norm)
        metrics.add_mean("sampling/skipped_frac", [not needed for needed in needs_backward])
        metrics.add_mean("charts/learning_rate", [warm * args.learning_rate])
        if figures:  # a validated step also leaves responses to read
            run.save_samples(step, batch, texts, verdicts, args.group_size)
        run.log(step, figures | metrics.reduce(policy))

    for part in (run, grader, sampler):  # the sampler last: with an engine goes the process group
        part.close()


if __name__ == "__main__":
    start(main, Args)
