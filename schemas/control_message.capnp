@0xa7d20c94e6b81f35;
# Leader and workers over the control plane. Add only at the next ordinal.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe::schemas::wire");

struct Epoch {
  incarnation @0 :UInt64;
  number @1 :UInt64;
}

struct GangLayout {
  tensorParallelSize @0 :Int32;
  pipelineParallelSize @1 :Int32;
  maxModelLen @2 :Int64;
  maxNumSeqs @3 :Int64;
  maxNumBatchedTokens @4 :Int64;
  kvBlocks @5 :Int64;
  blockSize @6 :Int64;
  weightsDtype @7 :Text;
  kvCacheDtype @8 :Text;
  dataPlane @9 :Text;
}

struct JoinRequest {
  protocol @0 :UInt32;
  buildId @1 :Text;
  rank @2 :Int32;
  node @3 :Text;
  layout @4 :GangLayout;
  modelDescriptionDigest @5 :Data;
  instructionPaths @6 :List(Text);
  kernelVersion @7 :Int32;
}

struct Welcome {
  incarnation @0 :UInt64;
  instructionPath @1 :Text;
}

struct LoadingProgress {
  bytes @0 :UInt64;
  totalBytes @1 :UInt64;
}

struct Loaded {
  shareDigest @0 :Data;
  instructionPath @1 :Text;
}

struct Prepared {
  epoch @0 :Epoch;
  address @1 :Data;
}

struct Connect {
  epoch @0 :Epoch;
  addresses @1 :List(Data);
}

struct EpochEnded {
  epoch @0 :Epoch;
  reason @1 :Text;
}

struct ControlMessage {
  sender @0 :Int32;
  sequence @1 :UInt64;
  body :union {
    joinRequest @2 :JoinRequest;
    welcome @3 :Welcome;
    refusal @4 :Text;
    loadingProgress @5 :LoadingProgress;
    loaded @6 :Loaded;
    prepare @7 :Epoch;
    prepared @8 :Prepared;
    connect @9 :Connect;
    connected @10 :Epoch;
    epochEnded @11 :EpochEnded;
  }
}
