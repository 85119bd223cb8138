"""RLOO on the task reward alone (Table 1).

    R(y) = r_task                                                   Eq. 3   optimum: all mass on the highest reward

    python rloo_task.py --model Qwen/Qwen2.5-3B-Instruct
    torchrun --nproc-per-node 4 rloo_task.py --model Qwen/Qwen2.5-3B-Instruct

    A_i  = R_i - mean of R_j over the other responses to the prompt leave-one-out (App. A), not divided by a deviation
    grad = 1/N sum_i A_i sum_t w_it grad log pi_theta(y_it)         N response tokens of the step

Strictly on-policy: one sampling, one policy forward, one optimizer step a batch, so there is no ratio to clip. A
micro-batch is whole groups: log-probabilities, return, baseline, loss and backward happen in one pass. The return is
data (detached), summed over the response with its stop token; Z is the same for a whole group and cancels in A. The
weight w = pi_theta / pi_sampler corrects for the sampler's arithmetic (App. A). To try an idea: copy, edit `objective`.
Shapes: P problems, G group, B = P*G responses; in one micro-batch b responses of N tokens.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import AutoTokenizer

from common.data import batch_indices, load_problems, load_prompts, load_validation
from common.evaluate import validate
from common.grading import Grader
from common.logprob import base_logprobs, full_tensor, load_model, packed_microbatches, token_logprobs, weights
from common.rollout import start_sampler
from common.run import Positive, Run, compute_dtype, resolve_model, share_of, start, start_processes
from common.run.memory import check_memory, moments_on_device
from common.run.metrics import Metrics

RETURN_READS = {"r_task"}  # what `objective` uses


@dataclass
class Args:
    # --- objective ---
    fixed_length: bool = False
    """EOS is an ordinary token and every response fills the window (App. B)"""
    grade_after_eos: bool = False
    """with --fixed-length, grade the whole window, as the authors' code did, not the text up to the first EOS"""
    loss_denominator: Literal["tokens", "responses"] = "tokens"
    """tokens: response tokens of the step (the authors'); responses: B, unbiased at variable length too"""

    # --- model and data ---
    model: str = "Qwen/Qwen2.5-3B-Instruct"
    """Hugging Face id or folder; toy for the built-in miniature"""
    dataset: str = "math"
    """training set: math, deepscaler, gsm8k, toy, toy_hard, or a .jsonl(.gz) file with problem and answer"""
    validation_dataset: str = ""
    """validation set, name or file; empty for the one that belongs to the training set"""
    validation_size: int = 0
    """validate on so many problems, drawn once by the seed; 0 for all"""
    prompt_file: str = ""
    """wording of the prompt, with {problem}; empty for the one that belongs to the training set"""
    examples_file: str = ""
    """worked examples (.jsonl with problem and solution) before every problem"""
    max_total_tokens: int = 2048
    """window: prompt and response together (the authors' code; the paper says response length)"""
    lora_rank: int = 0
    """train adapters of this rank instead of all weights; wants a learning rate about ten times larger"""

    # --- optimization (App. A) ---
    seed: int = 42
    """of batches, samples and initial adapters"""
    num_steps: int = 500
    """optimizer steps"""
    num_problems: int = 32
    """P, problems a step, over all processes"""
    group_size: int = 8
    """G, responses a problem"""
    learning_rate: Positive = 1e-6
    """of AdamW, after the warm-up"""
    warmup_steps: int = 50
    """linear warm-up from a tenth of the learning rate; constant afterwards"""
    weight_decay: float = 0.01
    """of AdamW"""
    max_grad_norm: float = 1.0
    """largest L2 norm of the gradient (not in the paper; the authors' code)"""
    importance_weight_cap: float = 20.0
    """truncation of pi_theta / pi_sampler (not in the paper; the authors' code)"""

    # --- speed and memory: leave the result as it is, but for --dtype ---
    sampler: Literal["auto", "vllm", "transformers"] = "auto"
    """auto: vLLM on a GPU, transformers on a CPU"""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """compute precision; auto: bfloat16 on a GPU, float32 on a CPU; master weights are float32 always"""
    microbatch_tokens: int = 0
    """most tokens in a forward pass, each response with its prompt; groups stay whole; 0 for what fits the memory"""
    checkpoint_activations: bool = True
    """recompute every layer in the backward pass"""
    compile_layers: bool = True
    """on a GPU, compile every decoder layer: faster, but results differ by rounding and the first step is slow"""
    moments_on_host: bool = False
    """keep Adam's moments in host memory outside the optimizer step; copies 8 bytes a parameter each way; switched on
    automatically where a run fits a GPU in no other way"""
    gpu_memory_utilization: float = 0.4
    """share of the GPU that vLLM may take while sampling"""
    skip_memory_check: bool = False
    """start even if the memory estimate says that the run does not fit"""
    base_curves: bool = True
    """log pi_base and the KL to it also where the return reads neither; costs the base's memory and forward pass"""
    num_grading_workers: int = 0
    """grading processes; 0 for one a core, at most 16"""

    # --- output ---
    eval_every: int = 20
    """validate and save every so many steps, and at start and end"""
    keep_all_checkpoints: bool = False
    """keep every checkpoint, not just the newest and the best"""
    output_dir: str = "runs"
    """where the run folder is made"""
    exp_name: str = ""
    """first part of its name; empty for the name of the script"""
    resume: str = ""
    """run folder to continue"""

    def __post_init__(self):
        if self.group_size < 2:
            raise ValueError(f"--group-size {self.group_size}: the leave-one-out mean needs at least 2 responses.")
        if min(self.num_steps, self.num_problems, self.eval_every, self.max_total_tokens) < 1:
            raise ValueError("--num-steps, --num-problems, --eval-every and --max-total-tokens must be at least 1.")


def objective(
    r_task: torch.Tensor, logp: torch.Tensor, logp_base: torch.Tensor, length: torch.Tensor, args: Args
) -> torch.Tensor:
    """The return of each response (b,), from task reward, log-probabilities (nats), tokens: Eq. 3."""
    return r_task


def leave_one_out(returns: torch.Tensor, group_size: int) -> torch.Tensor:
    """Each return less the mean of the others in its group: (b,) -> (b,)."""
    groups = returns.view(-1, group_size)
    others = (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
    return (groups - others).view(-1)


def policy_loss(
    token_logp: torch.Tensor, sampler_logp: torch.Tensor, advantages: torch.Tensor, cap: float
) -> torch.Tensor:
    """Scalar whose gradient is minus the estimator without its denominator; of (N,) each, weights cut at `cap`."""
    importance_weight = (token_logp.detach() - sampler_logp).exp().clamp(max=cap)
    return -(importance_weight * advantages * token_logp).sum()


def main(args: Args) -> None:
    device = start_processes(args.seed)
    dtype = compute_dtype(args.dtype, device)
    path = resolve_model(args.model)
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    problems, prompts = load_prompts(tokenizer, load_problems(args.dataset), args)
    validation = load_prompts(tokenizer, load_validation(args), args)
    needs_base = "logp_base" in RETURN_READS or args.base_curves
    check_memory(path, args, device, dtype, needs_base)
    run = Run(args, __file__)
    policy = load_model(path, args, device, dtype)
    base = load_model(path, args, device, dtype, trainable=False) if needs_base and not args.lora_rank else None
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.learning_rate, weight_decay=args.weight_decay, fused=True)
    sampler = start_sampler(
        args.sampler, path, args.max_total_tokens, dtype=dtype, device=device,
        gpu_memory_utilization=args.gpu_memory_utilization,
    )  # fmt: skip
    grader = Grader(args.num_grading_workers)

    for step in run.steps(policy, optimizer):
        metrics, figures = Metrics(step), {}
        with metrics.time("sync"):
            sampler.push(weights(policy))
        if step % args.eval_every == 0 or step == args.num_steps:
            with metrics.pause():
                figures = validate(sampler, tokenizer, grader, *validation, args)
                run.save(step, policy, optimizer, tokenizer, figures)
        if step == args.num_steps:
            run.log(step, figures)
            break

        # 1. sample G responses to each of this process's problems
        with metrics.time("rollout"):
            chosen = batch_indices(len(problems), args.num_problems, args.seed, step)[share_of(args.num_problems)]
            batch = metrics.batch = [problems[i] for i in chosen]
            rollout = sampler.generate(
                [prompts[i] for i in chosen], args.group_size, args.max_total_tokens, args.seed, step,
                [problem.id for problem in batch], fixed_length=args.fixed_length,
            )  # fmt: skip
            sampler.sleep()
        num_tokens = metrics.rollout(rollout, len(tokenizer))  # of all processes
        denominator = num_tokens if args.loss_denominator == "tokens" else args.num_problems * args.group_size

        # 2. grade them; if the return reads nothing else, a group of equal rewards has nothing to teach: A = 0
        with metrics.time("grade"):
            texts = rollout.texts(tokenizer, [] if args.grade_after_eos else sampler.stop_ids)
            verdicts = grader.grade(texts, [problem for problem in batch for _ in range(args.group_size)])
        r_task = torch.tensor([float(verdict.authors) for verdict in verdicts], dtype=torch.float64, device=device)
        by_group = r_task.view(-1, args.group_size).tolist()
        learns = [RETURN_READS != {"r_task"} or len(set(rewards)) > 1 for rewards in by_group]

        # 3. one pass over the groups: log-probabilities, return, leave-one-out, loss, backward
        with metrics.time("train"):
            for packed, backward in packed_microbatches(rollout, learns, args.microbatch_tokens, device):
                with torch.set_grad_enabled(backward):
                    token_logp, entropy = token_logprobs(policy, packed)  # (N,), (N,)
                logp = packed.sum(token_logp.detach())  # (b,)
                logp_base = packed.sum(base_logprobs(policy, base, packed)) if needs_base else logp * math.nan  # (b,)
                returns = objective(r_task[packed.rows], logp, logp_base, packed.length, args)  # (b,)
                advantages = packed.spread(leave_one_out(returns, args.group_size))  # (N,)
                loss = policy_loss(token_logp, packed.sampler_logp, advantages, args.importance_weight_cap)
                loss = loss / denominator
                metrics.watch("loss", loss, [batch[group].id for group in packed.groups])
                if backward:
                    loss.backward()
                metrics.mean("objective/return", returns)
                metrics.mean("objective/task_reward", r_task[packed.rows])
                metrics.mean("objective/logp_base", logp_base)
                metrics.mean("objective/kl_base", logp - logp_base)
                metrics.sum("losses/policy_loss", loss.detach())
                metrics.tokens(token_logp.detach(), entropy, packed.sampler_logp)
            grad_norm = full_tensor(torch.nn.utils.clip_grad_norm_(trained, args.max_grad_norm))
            metrics.watch("gradient norm", grad_norm, [problem.id for problem in batch])
            metrics.stop_unless_finite()
            warm = 0.1 + 0.9 * step / args.warmup_steps if step < args.warmup_steps else 1.0
            optimizer.param_groups[0]["lr"] = warm * args.learning_rate
            with moments_on_device(optimizer, args.moments_on_host):
                optimizer.step()
            optimizer.zero_grad()

        # 4. what happened
        metrics.mean("losses/grad_norm", grad_norm)
        metrics.mean("sampling/skipped_frac", [1.0 - learning for learning in learns])
        metrics.mean("charts/learning_rate", [warm * args.learning_rate])
        if figures:  # a validated step also leaves responses to read
            run.save_samples(step, batch, texts, verdicts, args.group_size)
        run.log(step, figures | metrics.reduce(policy))

    for part in (run, grader, sampler):  # the sampler last: with an engine goes the process group
        part.close()


if __name__ == "__main__":
    start(main, Args)
