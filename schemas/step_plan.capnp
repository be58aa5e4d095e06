@0xc3a1d5b7e9f24608;
# A step plan and its result. Add only at the next ordinal; never renumber, retype or reuse one.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe::schemas::wire");

struct TokenBias {
  tokenId @0 :Int32;
  bias @1 :Float32;
}

struct TokenCount {
  tokenId @0 :Int32;
  inAnswer @1 :Int32;
}

struct LogitChanges {
  bias @0 :List(TokenBias);
  repetitionPenalty @1 :Float32 = 1;
  frequencyPenalty @2 :Float32;
  presencePenalty @3 :Float32;
  counts @4 :List(TokenCount);
  forbidden @5 :List(Int32);
  allowed @6 :List(UInt32);
}

struct Draw {
  temperature @0 :Float32;
  seed @1 :UInt64;
  choice @2 :UInt32;
  tokenIndex @3 :UInt64;
  topP @4 :Float32 = 1;
  topK @5 :Int32;
  logprobs @6 :Int32 = -1;
  minP @7 :Float32;
  changes @8 :LogitChanges;  # absent: none
  changesFollow @9 :Bool;
}

struct PlannedRows {
  sequence @0 :UInt64;
  firstPosition @1 :Int64;
  promptLength @2 :Int64;
  tokenIds @3 :List(Int32);
  blockTables @4 :List(List(Int32));
  sample :union {
    none @5 :Void;
    draw @6 :Draw;
  }
  adapter :union {
    none @7 :Void;
    id @8 :UInt32;
  }
  rowGroup :union {
    none @9 :Void;
    id @10 :UInt32;
  }
  draftTokenIds @11 :List(Int32);
  stored @12 :Int64;
  lastToken :union {
    known @13 :Void;
    slot @14 :UInt32;  # of the step before
  }
  scored @15 :ScoredRows;  # absent: none
}

struct ScoredRows {
  firstRow @0 :Int64;
  logprobs @1 :Int32;
  tokenIds @2 :List(Int32);
}

struct StepPlan {
  incarnation @0 :UInt64;
  epoch @1 :UInt64;
  step @2 :UInt64;
  sequences @3 :List(PlannedRows);
  model :union {
    none @4 :Void;
    id @5 :UInt32;
  }
}

struct TokenLogprob {
  tokenId @0 :Int32;
  logprob @1 :Float32;
}

struct SampledToken {
  sequence @0 :UInt64;
  tokenId @1 :Int32;
  logprob @2 :Float32;
  top @3 :List(TokenLogprob);
  finite @4 :Bool = true;
  allowed @5 :Bool = true;
}

struct StepResult {
  tokens @0 :List(SampledToken);
  scored @1 :List(SampledToken);
}

struct FollowingChanges {
  step @0 :UInt64;
  rows @1 :List(LogitChanges);
}
